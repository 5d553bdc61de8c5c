package storage

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Recorded is a Local whose power can be cut after the fact: for tests that put a whole repository on it.
type Recorded struct {
	*Local
	recording *recording
}

// NewRecorded returns an empty one.
func NewRecorded(t *testing.T) Recorded {
	l, r := record(t)
	return Recorded{l, r}
}

// Moment returns how many changes were made to the file system so far.
func (r Recorded) Moment() int {
	r.recording.mu.Lock()
	defer r.recording.mu.Unlock()
	return len(r.recording.events)
}

// Cut returns the objects that may be there after a power cut at a moment. Of what was not synced a part of about keep is.
func (r Recorded) Cut(moment int, random *rand.Rand, keep float64) map[string]string {
	objects := map[string]string{}
	for name, data := range crash(r.recording.events[:moment], random, keep) {
		name, ours := strings.CutPrefix(name, "repository/")
		if ours && !strings.Contains(name, tempPrefix) {
			objects[name] = data
		}
	}
	return objects
}
