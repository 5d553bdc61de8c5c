package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"varve/repo/pack"
	"varve/snapshot"
)

// units are those that restic takes: powers of 1024, whichever way they are written.
var units = []struct {
	letter string
	bytes  float64
}{{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}}

// parseSize reads a number of bytes: "4096", "16M", "1.5GiB". A number without a unit counts units of plain bytes.
func parseSize(text string, plain int64) (int64, error) {
	number := strings.ToLower(strings.TrimSpace(text))
	factor := float64(plain)
	for _, u := range units {
		if rest, found := cutUnit(number, u.letter); found {
			number, factor = rest, u.bytes
			break
		}
	}
	if rest, found := strings.CutSuffix(number, "b"); found {
		number, factor = rest, 1
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || n < 0 || math.IsNaN(n) || n*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size such as 16M or 1.5G", text)
	}
	return int64(n * factor), nil
}

func cutUnit(text, letter string) (string, bool) {
	for _, unit := range []string{letter + "ib", letter + "b", letter} {
		if rest, found := strings.CutSuffix(text, unit); found {
			return rest, true
		}
	}
	return text, false
}

// parsePercent reads "5%".
func parsePercent(text string) (float64, error) {
	number, found := strings.CutSuffix(strings.TrimSpace(text), "%")
	p, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !found || err != nil || p < 0 || p > 100 || math.IsNaN(p) {
		return 0, fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
	}
	return p, nil
}

// parseParity reads how much parity packs get, in whole percent.
func parseParity(text string) (int, error) {
	p, err := parsePercent(text)
	if err == nil && (p != math.Trunc(p) || p > pack.MaxParity) {
		err = fmt.Errorf("%q is not a whole percentage from 0%% to %d%%", text, pack.MaxParity)
	}
	if err != nil {
		return 0, fmt.Errorf("--parity: %w", err)
	}
	return int(p), nil
}

// parseMaxUnused reads how much garbage may stay: "5%" of the repository, a size, or "unlimited".
func parseMaxUnused(text string) (func(used int64) int64, error) {
	if strings.EqualFold(text, "unlimited") {
		return func(int64) int64 { return math.MaxInt64 }, nil
	}
	if strings.HasSuffix(text, "%") {
		p, err := parsePercent(text)
		if err != nil {
			return nil, err
		}
		if p == 100 {
			return func(int64) int64 { return math.MaxInt64 }, nil
		}
		// p percent of what is stored when pruned, not of what is used.
		return func(used int64) int64 { return int64(p / (100 - p) * float64(used)) }, nil
	}
	n, err := parseSize(text, 1)
	if err != nil {
		return nil, fmt.Errorf("--max-unused: %q is not a percentage, a size or unlimited", text)
	}
	return func(int64) int64 { return n }, nil
}

// keepCount is the value of --keep-last and its like: a number, or "unlimited".
type keepCount int

func (k *keepCount) Set(text string) error {
	if strings.EqualFold(text, "unlimited") {
		*k = snapshot.Forever
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 {
		return errors.New(`it is a number, or "unlimited"`)
	}
	*k = keepCount(n)
	return nil
}

func (k *keepCount) String() string {
	if *k == snapshot.Forever {
		return "unlimited"
	}
	return strconv.Itoa(int(*k))
}

func (k *keepCount) Type() string { return "n" }

// byteSize is the value of flags that take a size.
type byteSize int64

func (b *byteSize) Set(text string) error {
	n, err := parseSize(text, 1)
	*b = byteSize(n)
	return err
}

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Type() string { return "size" }

// span is the value of --keep-within and its like.
type span struct{ snapshot.Span }

func (s *span) Set(text string) (err error) {
	s.Span, err = snapshot.ParseSpan(text)
	return err
}

func (s *span) String() string {
	if s.Span == (snapshot.Span{}) {
		return ""
	}
	return s.Span.String()
}

func (s *span) Type() string { return "span" }

// tagLists is the value of --tag where it selects: each use is one list, of which all tags are wanted.
type tagLists [][]string

func (t *tagLists) Set(text string) error {
	*t = append(*t, strings.Split(text, ","))
	return nil
}

func (t *tagLists) String() string {
	var lists []string
	for _, list := range *t {
		lists = append(lists, strings.Join(list, ","))
	}
	return strings.Join(lists, " ")
}

func (t *tagLists) Type() string { return "tag[,tag]" }

// parseTags reads the tags that a snapshot is to have.
func parseTags(uses []string) ([]string, error) {
	var tags []string
	for _, use := range uses {
		for tag := range strings.SplitSeq(use, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "" || strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' }) {
				return nil, fmt.Errorf("%q is not a tag", tag)
			}
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// parseTime reads a time as restic takes it, in the local zone, or as RFC 3339 has it.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2026-01-31 23:59:00 or now", text)
}

// shellWords splits a command line as a shell does: blanks separate words, quotes and backslashes keep them together.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case r == '\\' && quote != '\'' && i+1 < len(runes) && strings.ContainsRune(`"'\ `, runes[i+1]):
			i++
			word.WriteRune(runes[i])
			inWord = true
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// parseSubset reads which packs a check reads: "2/10", "5%" or a size such as "1G".
type subset struct {
	part, parts int64
	percent     float64
	bytes       int64
}

func parseSubset(text string) (subset, error) {
	if first, second, found := strings.Cut(text, "/"); found {
		n, err1 := strconv.ParseInt(first, 10, 32)
		t, err2 := strconv.ParseInt(second, 10, 32)
		if err1 != nil || err2 != nil || n < 1 || t < n {
			return subset{}, fmt.Errorf("%q is not a part such as 2/10", text)
		}
		return subset{part: n, parts: t}, nil
	}
	if strings.HasSuffix(text, "%") {
		p, err := parsePercent(text)
		if err == nil && p == 0 {
			err = errors.New("0% of the packs is nothing to read")
		}
		return subset{percent: p}, err
	}
	n, err := parseSize(text, 1)
	if err != nil || n == 0 {
		return subset{}, fmt.Errorf("%q is not a part such as 2/10, a percentage or a size", text)
	}
	return subset{bytes: n}, nil
}
