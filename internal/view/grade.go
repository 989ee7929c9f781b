package view

// Grade says how bad something is. A larger one is worse.
type Grade int

// The grades.
const (
	Good Grade = iota // as it should be
	Odd               // worth a look
	Bad               // somebody must do something
)

// String returns the grade as a word.
func (g Grade) String() string {
	switch g {
	case Good:
		return "good"
	case Odd:
		return "odd"
	}
	return "bad"
}
