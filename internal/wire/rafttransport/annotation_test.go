package rafttransport

import "testing"

func FuzzAnnotation(f *testing.F) {
	f.Add(annotation{notify: true, known: true, sum: 1 << 60}.encode())
	f.Add([]byte("127.0.0.1:7373"))
	f.Add([]byte{0xff, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		a := decodeAnnotation(b)
		if again := decodeAnnotation(a.encode()); again != a {
			t.Fatalf("%+v is read as %+v", a, again)
		}
		if len(b) != annotationSize && a != (annotation{}) {
			t.Fatalf("%x is no annotation, and was read as %+v", b, a)
		}
	})
}
