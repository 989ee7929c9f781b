package process

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// ReadSettings reads the settings of this process, which [Process.Start] has sent. The reader
// returns the lines that [Process.Send] sends afterwards. It returns io.EOF when the parent is
// gone.
func ReadSettings(settings any) (*bufio.Reader, error) {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, settings)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of the node from standard input: %w", err)
	}
	return in, nil
}

// ExitWithParent exits with status 1 when the input ends, that is, when the parent is gone. It
// ignores all lines.
func ExitWithParent(in io.Reader) {
	io.Copy(io.Discard, in)
	os.Exit(1)
}
