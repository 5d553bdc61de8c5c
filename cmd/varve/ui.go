package main

// This is the only place that prints, and these are its rules.
//
//   - What was asked for goes to standard output: tables and summaries for people, or JSON for programs, never both.
//   - What happens on the way (notes, warnings, questions, progress) goes to standard error.
//   - Progress is drawn on a terminal only. --quiet leaves out progress, notes and summaries, but no warning and no list
//     that was asked for.
//   - With --json, standard output is one object a line (or one array, for lists), with restic's message types; warnings
//     and the final error are objects on standard error.
//   - Names come from disks, records and the storage, and must not drive a terminal: what cannot be printed is left out.
//   - No password ever gets here.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"
)

// ui is how the program talks to its user.
type ui struct {
	in       *os.File
	out, err io.Writer
	json     bool
	quiet    bool
	verbose  bool
	draws    bool // standard error is a terminal on which progress may be drawn

	mu     sync.Mutex
	bars   *mpb.Progress // while progress is drawn
	active *meter
	step   *stepMeter
}

func newUI() *ui {
	return &ui{in: os.Stdin, out: os.Stdout, err: os.Stderr, draws: term.IsTerminal(int(os.Stderr.Fd()))}
}

// print shows people what they asked for.
func (u *ui) print(format string, a ...any) {
	if !u.json {
		fmt.Fprintln(u.out, clean(fmt.Sprintf(format, a...)))
	}
}

// clean returns text without what is neither printable nor the end of a line: escape sequences, and what turns the
// direction of writing around.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
}

// say shows people how it went, unless they want quiet.
func (u *ui) say(format string, a ...any) {
	if !u.quiet {
		u.print(format, a...)
	}
}

// object shows programs what they asked for.
func (u *ui) object(v any) {
	if u.json {
		u.mu.Lock()
		defer u.mu.Unlock()
		_ = json.NewEncoder(u.out).Encode(v) // nobody is left to tell when standard output is gone
	}
}

// aside writes a line to standard error, above the progress when that is drawn.
func (u *ui) aside(line string, object any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.json {
		_ = json.NewEncoder(u.err).Encode(object)
		return
	}
	var to io.Writer = u.err
	if u.bars != nil {
		to = u.bars
	}
	_, _ = fmt.Fprintln(to, clean(line))
}

// note tells what may be good to know but needs no action.
func (u *ui) note(format string, a ...any) {
	if u.quiet {
		return
	}
	text := fmt.Sprintf(format, a...)
	u.aside("note: "+text, map[string]any{"message_type": "note", "message": text})
}

// warn tells what is wrong although the work goes on. item is what it is about, as a disk; it may be empty.
func (u *ui) warn(during, item string, err error) {
	line := "warning: " + err.Error()
	if item != "" {
		line = "warning: " + item + ": " + err.Error()
	}
	u.aside(line, map[string]any{"message_type": "error", "error": map[string]string{"message": err.Error()}, "during": during, "item": item})
}

// fail tells why the program ends with status code.
func (u *ui) fail(code int, err error) {
	u.aside("varve: "+err.Error(), map[string]any{"message_type": "exit_error", "code": code, "message": err.Error()})
}

// table prints rows under a header. Columns whose header begins with ">" are aligned to the right.
func (u *ui) table(header []string, rows [][]string) {
	if u.json {
		return
	}
	widths := make([]int, len(header))
	right := make([]bool, len(header))
	for i := range header {
		header[i], right[i] = strings.TrimPrefix(header[i], ">"), strings.HasPrefix(header[i], ">")
	}
	for _, row := range append([][]string{header}, rows...) {
		for i := range row {
			row[i] = clean(strings.ReplaceAll(row[i], "\n", " "))
			cell := row[i]
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	w := bufio.NewWriter(u.out)
	line := func(row []string) {
		var text strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if right[i] {
				text.WriteString(pad + cell + "  ")
			} else {
				text.WriteString(cell + pad + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(text.String(), " "))
	}
	line(header)
	total := 0
	for _, n := range widths {
		total += n + 2
	}
	fmt.Fprintln(w, strings.Repeat("-", max(0, total-2)))
	for _, row := range rows {
		line(row)
	}
	_ = w.Flush()
}

// interactive reports whether there is somebody to ask.
func (u *ui) interactive() bool { return term.IsTerminal(int(u.in.Fd())) && u.draws }

// secret asks for a password, which does not show. When ctx ends, the terminal is as it was before.
func (u *ui) secret(ctx context.Context, prompt string) ([]byte, error) {
	before, err := term.GetState(int(u.in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("asking for the password: %w", err)
	}
	fmt.Fprint(u.err, prompt)
	password, err := untilDone(ctx, func() ([]byte, error) { return term.ReadPassword(int(u.in.Fd())) })
	fmt.Fprintln(u.err)
	if ctx.Err() != nil {
		_ = term.Restore(int(u.in.Fd()), before) // there is nothing else to be done for the terminal
	}
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	return password, nil
}

// untilDone returns what f returns, or the error of ctx when that ends first; f is left behind then.
func untilDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		value, err := f()
		results <- result{value, err}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// ask returns what the user answers to a question, one line without its end.
func (u *ui) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(u.err, question)
	line, err := untilDone(ctx, func() (string, error) { return bufio.NewReader(u.in).ReadString('\n') })
	if err != nil && !(errors.Is(err, io.EOF) && line != "") {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// size is n bytes for people.
func size(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}

// percent is part of whole for people.
func percent(part, whole int64) string {
	if whole == 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// count is n things for people.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(n) + " " + many
}
