package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"varve/chunker"
	"varve/repo"
	"varve/repo/storage"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"varve": main})
}

// TestScripts runs testdata/script/*.txt against the real command. These commands are there beside testscript's own:
//
//	status N varve ARGS...           the command must end with exit status N
//	repository                       makes a repository as init does, but with a password that costs nothing to try
//	random FILE SIZE SEED            makes a file of random bytes
//	edit FILE OFFSET LENGTH SEED     overwrites a part of it with others
//	sparse FILE SIZE                 makes a file that is one hole, or sets the size of one that exists
//	flip FILE OFFSET                 flips a bit; a negative offset counts from the end
//	snapshot NAME N                  sets $NAME to the id of snapshot N of those there are, 0 is the oldest, -1 the newest
//	pack NAME                        sets $NAME to the path of the largest pack
//	object FILE TYPE FIELD…          stdout, stderr or FILE has an object of that message_type with these fields;
//	                                 FIELD=VALUE and FIELD<NUMBER say more of one
//	array FILE N FIELD…              stdout is an array of N objects that have these fields
//	newer-format                     makes the repository say that it has a newer format
func TestScripts(t *testing.T) { testscript.Run(t, scripts("script")) }

// scripts returns how the scripts in a folder of testdata are run.
func scripts(folder string) testscript.Params {
	return testscript.Params{
		Dir:                 filepath.Join("testdata", folder),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("VARVE_REPOSITORY", filepath.Join(e.WorkDir, "repository"))
			e.Setenv("VARVE_CACHE_DIR", filepath.Join(e.WorkDir, "cache"))
			e.Setenv("VARVE_PASSWORD", "test")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": cmdStatus, "repository": cmdRepository, "random": cmdRandom, "edit": cmdEdit, "sparse": cmdSparse,
			"flip": cmdFlip, "snapshot": cmdSnapshot, "pack": cmdPack, "object": cmdObject, "array": cmdArray,
			"newer-format": cmdNewerFormat,
		},
	}
}

// usage ends the script unless it gives as many arguments as a command wants.
func usage(ts *testscript.TestScript, neg bool, args []string, n int, text string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", text)
	}
}

func number(ts *testscript.TestScript, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	ts.Check(err)
	return n
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "status N COMMAND...")
	want := number(ts, args[0])
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if int64(got) != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}

func cmdRepository(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, "repository")
	st, err := storage.OpenLocal(ts.Getenv("VARVE_REPOSITORY"), true)
	ts.Check(err)
	params, err := chunker.Default()
	ts.Check(err)
	cheap := repo.KDF{Time: 1, Memory: 64, Threads: 1}
	r, err := repo.Init(context.Background(), st, repo.Options{Password: []byte(ts.Getenv("VARVE_PASSWORD"))}, cheap, settings{Chunker: params})
	ts.Check(err)
	ts.Check(r.Close())
}

func cmdRandom(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, "random FILE SIZE SEED")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), randomBytes(number(ts, args[1]), number(ts, args[2])), 0o600))
}

func randomBytes(n, seed int64) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 4, "edit FILE OFFSET LENGTH SEED")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt(randomBytes(number(ts, args[2]), number(ts, args[3])), number(ts, args[1]))
	ts.Check(err)
}

func cmdSparse(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "sparse FILE SIZE")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY|os.O_CREATE, 0o600)
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(number(ts, args[1])))
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "flip FILE OFFSET")
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at := number(ts, args[1])
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= 0x10
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

func cmdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "snapshot NAME N")
	ts.Check(ts.Exec("varve", "snapshots", "--json"))
	var list []struct{ ID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
	n := int(number(ts, args[1]))
	if n < 0 {
		n += len(list)
	}
	if n < 0 || n >= len(list) {
		ts.Fatalf("there are %d snapshots", len(list))
	}
	ts.Setenv(args[0], list[n].ID)
}

func cmdPack(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, "pack NAME")
	var largest string
	var size int64
	ts.Check(filepath.WalkDir(filepath.Join(ts.Getenv("VARVE_REPOSITORY"), "packs"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			largest, size = name, info.Size()
		}
		return err
	}))
	if largest == "" {
		ts.Fatalf("there is no pack")
	}
	ts.Setenv(args[0], largest)
}

// cmdNewerFormat makes the config of a repository say that it has format version 9.
func cmdNewerFormat(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, "newer-format")
	for _, name := range []string{"config", "config.copy"} {
		path := filepath.Join(ts.Getenv("VARVE_REPOSITORY"), name)
		data, err := os.ReadFile(path)
		ts.Check(err)
		changed := strings.Replace(string(data), `"version":1`, `"version":9`, 1)
		if changed == string(data) {
			ts.Fatalf("%s has no version", name)
		}
		ts.Check(os.WriteFile(path, []byte(changed), 0o600))
	}
}

// missing returns which of fields, each FIELD, FIELD=VALUE or FIELD<NUMBER, an object lacks.
func missing(object map[string]any, fields []string) (lacks []string) {
	for _, field := range fields {
		name, want, compare := strings.Cut(field, "=")
		name, limit, less := strings.Cut(name, "<")
		var value any = object
		for part := range strings.SplitSeq(name, ".") {
			switch v := value.(type) {
			case map[string]any:
				value = v[part]
			case []any:
				if i, err := strconv.Atoi(part); err == nil && i < len(v) {
					value = v[i]
				} else {
					value = nil
				}
			default:
				value = nil
			}
		}
		n, _ := value.(float64)
		most, _ := strconv.ParseFloat(limit, 64)
		if value == nil || compare && plain(value) != want || less && n >= most {
			lacks = append(lacks, field)
		}
	}
	return lacks
}

// plain is a JSON value as scripts write it.
func plain(v any) string {
	if n, is := v.(float64); is {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func cmdObject(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: object FILE TYPE FIELD[=VALUE]...")
	}
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	var lacks []string
	found := false
	for {
		var v any
		err := decoder.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		ts.Check(err)
		if object, is := v.(map[string]any); is && object["message_type"] == args[1] {
			lacks = missing(object, args[2:])
			if found = len(lacks) == 0; found {
				break
			}
		}
	}
	if found == neg {
		ts.Fatalf("%s object with %q: found is %v (the last one lacks %q)", args[1], args[2:], found, lacks)
	}
}

func cmdArray(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, "array FILE N FIELD[=VALUE]...")
	line, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	var list []map[string]any
	ts.Check(json.Unmarshal([]byte(line), &list))
	if len(list) != int(number(ts, args[1])) {
		ts.Fatalf("%d objects, not %s", len(list), args[1])
	}
	for i, object := range list {
		if lacks := missing(object, args[2:]); len(lacks) > 0 {
			names := []string{}
			for name := range object {
				names = append(names, name)
			}
			slices.Sort(names)
			ts.Fatalf("object %d lacks %q; it has %q", i, lacks, names)
		}
	}
}
