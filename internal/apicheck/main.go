// Apicheck keeps the exported surface of each public package in a file of api: one line for each
// declaration, sorted. Its test compares the files with the code, so that no export changes
// unnoticed. After an intended change run
//
//	go run ./internal/apicheck -write
//
// Without -write it prints the surface. The files describe the packages as they are on Linux.
package main

import (
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:generate go run . -write

func main() {
	log.SetFlags(0)
	log.SetPrefix("apicheck: ")
	write := flag.Bool("write", false, "write the files of api")
	flag.Parse()
	root, err := moduleRoot()
	if err != nil {
		log.Fatal(err)
	}
	files, err := surfaces(root)
	if err != nil {
		log.Fatal(err)
	}
	if !*write {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Printf("%s:\n%s\n", name, files[name])
		}
		return
	}
	if err := writeFiles(filepath.Join(root, "api"), files); err != nil {
		log.Fatal(err)
	}
}

// moduleRoot returns the directory of the module that the working directory is in.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err == nil && filepath.Base(mod) != "go.mod" {
		err = fmt.Errorf("the working directory is in no module")
	}
	return filepath.Dir(mod), err
}

// writeFiles makes the text files of dir these, and no others.
func writeFiles(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if _, ok := files[filepath.Base(path)]; !ok {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}
