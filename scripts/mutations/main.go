// Mutations takes lines out of the sources on which durability rests, one at a time, and sees to it that a test fails.
//
//	mutations [-few]
//
// A line that can go without any test noticing is a promise that nobody keeps an eye on. The sources stay as they are: the go
// command is given the changed file in the place of the real one (-overlay), and production code needs no hooks for that.
// A pattern that is not in its file exactly once fails too: whoever changes such a line looks at the list below.
// -few tries only those marked so.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mutation is a line that is taken out, and the test that has to fail then.
type mutation struct {
	what     string // is left out
	file     string
	from, to string // the text that is replaced
	tests    string
	in       string // the package of the tests; empty: the file's
	few      bool
}

const (
	local     = "repo/storage/local.go"
	session   = "repo/session.go"
	prune     = "repo/prune.go"
	condemned = "repo/condemned.go"
	lease     = "repo/lease.go"
)

var mutations = []mutation{
	// How an object becomes durable.
	{what: "the sync of an object's file", file: local, from: "err = f.Sync()", to: "err = nil", tests: "TestPowerCut$|TestPowerCutInARepositorysLife", few: true},
	{what: "the error of that sync", file: local, from: "err = f.Sync()", to: "_ = f.Sync()", tests: "TestEveryFailure"},
	{what: "the error of writing", file: local, from: "_, err = f.Write(data)", to: "_, _ = f.Write(data)", tests: "TestEveryFailure|TestFullDisk"},
	{what: "the error of closing", file: local, from: "closeErr := f.Close(); err == nil {", to: "closeErr := f.Close(); false {", tests: "TestEveryFailure"},
	{what: "the sync of the folder of an object", file: local, from: "if err := l.disk.syncDir(dir); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestPowerCut$", few: true},
	{what: "the sync of the folder above", file: local, from: "if err := l.disk.syncDir(parent); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestPowerCut$"},
	{what: "the sync above the root", file: local, from: "return l.disk.syncDir(parent)", to: "return nil", tests: "TestTrace"},
	{what: "the sync of a removal", file: local, from: "err = l.disk.syncDir(filepath.Dir(path))", to: "err = nil", tests: "TestPowerCut$"},
	{what: "the rename", file: local, from: "err := l.disk.rename(temp, path)", to: "err := error(nil)", tests: "TestLocalConforms"},
	{what: "that a name is taken only once", file: local, from: "err := l.disk.link(temp, path)", to: "err := l.disk.rename(temp, path)", tests: "TestLocalConforms"},
	{what: "that a temporary file goes after an error", file: local, from: "_ = l.disk.remove(temp) // the first error is the one that counts", to: "", tests: "TestEveryFailure|TestFullDisk"},

	// How a snapshot comes to be.
	{what: "that packs are stored before the record", file: session, from: "	if err := s.Sync(ctx); err != nil {\n		return ID{}, err", to: "	if err := error(nil); err != nil {\n		return ID{}, err", tests: "TestRecordComesLast", few: true},
	{what: "that a pack failed to be stored", file: session, from: "return fmt.Errorf(\"storing a pack: %w\", err)", to: "", tests: "TestEveryFaultIsSurvived|TestFullStorage"},
	{what: "that the packs are there", file: session, from: "if err := s.present(ctx); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestVanishedPackCommitsNothing", few: true},
	{what: "that a pack is read back", file: session, from: "if err := s.repo.verifyPack(data, dir, digests); err != nil {", to: "if _, err := digests, error(nil); err != nil {", tests: "TestFaultyMemoryStoresNothing"},
	{what: "the lease test before the record", file: session, from: "cmp.Or(s.lease.check(ctx), ctx.Err())", to: "cmp.Or(error(nil), ctx.Err())", tests: "TestLostLeaseStoresNoRecord", few: true},
	{what: "the lease test after the record", file: session, from: "s.lease.check(context.WithoutCancel(ctx))", to: "error(nil)", tests: "TestSuspendedBeforeTheRecord"},
	{what: "that a failed record is removed", file: "repo/record.go", from: "_ = r.DeleteRecord(context.WithoutCancel(ctx), id)", to: "", tests: "TestFailedCommitLeavesNoRecord"},

	// What is read is not believed.
	{what: "the hash of a chunk", file: "repo/load.go", from: "if h.id(data) != id {", to: "if false {", tests: "TestChunksAreHashed"},
	{what: "the hash of a record", file: "repo/record.go", from: "blake3.Sum256(sealed) != id ||", to: "", tests: "TestEverySwapIsFound", in: "snapshot"},
	{what: "the second copy of config", file: "repo/repo.go", from: `[]string{"config", "config.copy"} {
		data, err := st.Get`, to: `[]string{"config"} {
		data, err := st.Get`, tests: "TestOneCopyIsEnough"},

	// How prune removes.
	{what: "that what is in use is in readable packs", file: prune, from: "if n := p.marked.live.unclaimed(); n > 0 {", to: "if n := 0; n > 0 {", tests: "TestPruneRefusesDamage", few: true},
	{what: "that packs are copied before they go", file: prune, from: "if len(rewrite) > 0 {\n		written, err := p.repack(ctx, rewrite)", to: "if len(rewrite) > 1<<30 {\n		written, err := p.repack(ctx, rewrite)", tests: "TestPruneKeepsWhatIsInUse"},
	{what: "that the copies are durable", file: "repo/repack.go", from: "if err := s.Sync(ctx); err != nil {\n		return 0, err\n	}\n	return s.Added()", to: "if err := error(nil); err != nil {\n		return 0, err\n	}\n	return s.Added()", tests: "Prune|TestEveryFaultIsSurvived"},
	{what: "the lease test before packs are condemned", file: prune, from: "	if err := p.lease.check(ctx); err != nil {", to: "	if err := error(nil); err != nil {", tests: "TestPruneThatLostItsLease"},
	{what: "the lease test before packs go", file: prune, from: "cmp.Or(ctx.Err(), p.lease.check(ctx))", to: "cmp.Or(ctx.Err(), nil)", tests: "TestPruneThatLostItsLease"},
	{what: "the wait for those who began before", file: condemned, from: "		waiting = append(waiting, l)", to: "", tests: "TestProcessesInterleaved|TestPruneWaitsForSessions"},
	{what: "the second look at the records", file: prune, from: "	if p.marked.live.n > before {", to: "	if false && p.marked.live.n > before {", tests: "TestProcessesInterleaved|TestPruneWaitsForSessions"},

	// How a repair makes nothing worse.
	{what: "that what a repair saves is durable", file: "repo/repair.go", from: "if err := p.session.Sync(ctx); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestRepairDiesAnywhere"},
	{what: "that an index is opened again whose opening was killed", file: "index/open.go", from: "case open, closed, opening:", to: "case open, closed:", tests: "TestHowItWasLeft"},

	// How processes keep apart.
	{what: "that an expired lease does not count", file: lease, from: "if err := h.valid(); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestLostLease|TestLeasesKeepApart"},
	{what: "that a lost lease does not count", file: lease, from: "if _, err := h.repo.storage.Get(ctx, h.name, 0, -1, nil); err != nil {", to: "if err := error(nil); err != nil {", tests: "TestLostLease|TestLeasesKeepApart"},
	{what: "the look at others' leases", file: lease, from: "if len(others) > 0 {", to: "if false {", tests: "TestLostLease|TestLeasesKeepApart"},
	{what: "that look of a reader without a lease", file: lease, from: "if others != nil {", to: "if false {", tests: "TestReadersWithoutALease"},
}

func main() {
	few := flag.Bool("few", false, "only some")
	only := flag.String("only", "", "only those whose description contains this")
	flag.Parse()
	if err := run(*few, *only); err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(1)
	}
}

func run(few bool, only string) error {
	folder, err := os.MkdirTemp("", "mutations")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	tried, failed := 0, 0
	for _, m := range mutations {
		if few && !m.few || !strings.Contains(m.what, only) {
			continue
		}
		tried++
		if err := m.try(folder); err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "mutations: without %s (%s): %v\n", m.what, m.file, err)
		}
	}
	fmt.Printf("%d lines taken out one at a time, %d of them found by a test\n", tried, tried-failed)
	if failed > 0 {
		return errors.New("there are lines that no test needs")
	}
	return nil
}

// try runs the tests with the line taken out. It fails when they do not.
func (m *mutation) try(folder string) error {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	if n := bytes.Count(source, []byte(m.from)); n != 1 {
		return fmt.Errorf("%q is in the file %d times, not once: was it changed? then change the list in scripts/mutations too", m.from, n)
	}
	real, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	mutant, overlay := filepath.Join(folder, "mutant.go"), filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(mutant, bytes.Replace(source, []byte(m.from), []byte(m.to), 1), 0o600); err != nil {
		return err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {real: mutant}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return err
	}
	in := cmp.Or(m.in, filepath.Dir(m.file))
	out, err := exec.Command("go", "test", "-overlay", overlay, "-vet=off", "-count=1", "-timeout", "5m", "-run", m.tests, "./"+in).CombinedOutput()
	if err == nil { // "no tests to run" too
		return fmt.Errorf("the tests pass: %s", bytes.TrimSpace(out))
	}
	if !bytes.Contains(out, []byte("--- FAIL")) { // it does not compile, say
		return fmt.Errorf("no test has failed, and go test did: %s", out)
	}
	return nil
}
