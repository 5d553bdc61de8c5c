// Package varve_test keeps the shape of the module: which package may know which other, which module comes in where,
// and who may print. It reads the sources themselves and asks no tool, so that the test cache sees every file it read.
package varve_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A rule says what one package may import beside the standard library. Names of this module's packages stand without
// "varve/"; a module stands for all of its packages. The lists of tests come on top, for files named _test.go.
type rule struct {
	imports []string // packages of this module
	modules []string // modules of others

	testImports []string
	testModules []string
}

// rules has one row for every package: a folder that is not here fails the test, so that a new arrow is a decision.
var rules = map[string]rule{
	".":       {},
	"chunker": {modules: []string{"github.com/restic/chunker"}},
	"image": {
		modules:     []string{"golang.org/x/sys"},
		testModules: []string{"github.com/hanwen/go-fuse/v2"},
	},
	"image/filesystem":                {},
	"image/filesystem/ext":            {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/xfs":            {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/ntfs":           {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/fat":            {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/exfat":          {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/btrfs":          {imports: []string{"image/filesystem"}, modules: []string{"github.com/cespare/xxhash/v2", "github.com/klauspost/compress", "golang.org/x/crypto"}, testImports: []string{"image/filesystem/filesystemtest"}, testModules: []string{"golang.org/x/sys"}},
	"image/filesystem/swap":           {imports: []string{"image/filesystem"}, testImports: []string{"image/filesystem/filesystemtest"}},
	"image/filesystem/extract":        {imports: []string{"image/filesystem"}, modules: []string{"golang.org/x/sys"}, testImports: []string{"image/filesystem/ext", "image/filesystem/filesystemtest"}},
	"image/filesystem/filesystemtest": {imports: []string{"image/filesystem"}, modules: []string{"golang.org/x/sys"}},
	"image/partition":                 {},
	"image/volume": {
		imports: []string{
			"image", "image/filesystem", "image/filesystem/btrfs", "image/filesystem/exfat", "image/filesystem/ext", "image/filesystem/fat",
			"image/filesystem/ntfs", "image/filesystem/swap", "image/filesystem/xfs", "image/partition",
		},
		testImports: []string{"image/filesystem/filesystemtest"},
	},
	"index": {modules: []string{"github.com/dgraph-io/badger/v4", "github.com/gofrs/flock", "golang.org/x/sys"}},

	"repo": {
		imports: []string{"index", "repo/blocks", "repo/pack", "repo/storage"},
		modules: []string{
			"github.com/klauspost/compress", "github.com/zeebo/blake3", "golang.org/x/crypto", "golang.org/x/sync", "golang.org/x/sys",
		},
		testImports: []string{"repo/storage/storagetest"},
	},
	"repo/blocks": {modules: []string{"github.com/zeebo/blake3"}},
	"repo/pack": {
		modules: []string{"github.com/klauspost/compress", "github.com/klauspost/reedsolomon", "github.com/zeebo/blake3"},
	},
	"repo/storage": {
		modules:     []string{"golang.org/x/sys"},
		testImports: []string{"repo", "repo/storage/storagetest"}, // a whole repository on a folder whose power is cut
	},
	"repo/storage/storagetest": {imports: []string{"repo/storage"}},

	"snapshot/catalogue": {imports: []string{"image/filesystem"}, modules: []string{"github.com/zeebo/blake3"}},
	"snapshot": {
		imports:     []string{"chunker", "image", "image/filesystem", "snapshot/catalogue"},
		modules:     []string{"github.com/zeebo/blake3", "golang.org/x/sync"},
		testImports: []string{"index", "repo", "repo/storage", "repo/storage/storagetest"},
	},

	"cmd/varve": {
		imports: []string{"chunker", "image", "image/filesystem", "image/filesystem/extract", "image/volume", "index", "repo", "repo/pack", "repo/storage", "snapshot", "snapshot/catalogue"},
		modules: []string{
			"github.com/dustin/go-humanize", "github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/vbauerster/mpb/v8",
			"golang.org/x/sync", "golang.org/x/sys", "golang.org/x/term",
		},
		testImports: []string{"repo/storage/storagetest"},
	},

	"scripts/crash": { // it looks at what is left as a reader does, and makes the disks itself
		imports: []string{"repo", "repo/storage", "snapshot"},
		modules: []string{"github.com/hanwen/go-fuse/v2", "golang.org/x/sys"},
	},
	"scripts/floor":     {modules: []string{"github.com/klauspost/compress", "github.com/zeebo/blake3"}},
	"scripts/mutations": {},
	"scripts/reads":     {imports: []string{"image", "repo", "repo/storage", "snapshot"}},
}

// everywhere may be imported by the tests of any package.
var everywhere = []string{"pgregory.net/rapid", "github.com/google/go-cmp", "github.com/rogpeppe/go-internal"}

// mayPrint are the folders whose programs own the terminal.
var mayPrint = []string{"cmd", "scripts"}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	sources(t, parser.ImportsOnly, func(name string, fset *token.FileSet, file *ast.File) {
		folder := filepath.ToSlash(filepath.Dir(name))
		seen[folder] = true
		r, ok := rules[folder]
		if !ok {
			t.Errorf("%s: no rule for a package in %s: say in imports_test.go what it may import", name, folder)
			return
		}
		for _, spec := range file.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if problem := r.check(folder, path, strings.HasSuffix(name, "_test.go")); problem != "" {
				t.Errorf("%s: %s", fset.Position(spec.Pos()), problem)
			}
		}
	})
	if len(seen) < 2 {
		t.Fatalf("found sources only in %v: is the test run in the module's root?", seen)
	}
}

// check returns what is wrong with folder importing path, or "".
func (r rule) check(folder, path string, test bool) string {
	imports, modules := r.imports, r.modules
	if test {
		imports = slices.Concat(imports, r.testImports, []string{folder}) // a package may be tested from outside
		modules = slices.Concat(modules, r.testModules, everywhere)
	}
	first, _, _ := strings.Cut(path, "/")
	switch {
	case first == "varve":
		if !slices.Contains(imports, strings.TrimPrefix(path, "varve/")) {
			return fmt.Sprintf("%s must not know %s", folder, path)
		}
	case strings.Contains(first, "."): // only the standard library has no dot in its first word
		if !slices.ContainsFunc(modules, func(module string) bool { return path == module || strings.HasPrefix(path, module+"/") }) {
			return fmt.Sprintf("%s must not import %s", folder, path)
		}
	case path == "C":
		return fmt.Sprintf("%s must not import C: the binary is built without cgo", folder)
	}
	return ""
}

// TestRules shows that the law bites: that it is not a table which allows everything.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		folder, path string
		test, ok     bool
	}{
		{"chunker", "bytes", false, true},
		{"chunker", "github.com/restic/chunker", false, true},
		{"chunker", "github.com/restic/chunkers", false, false},
		{"chunker", "varve/image", false, false},
		{"chunker", "C", false, false},
		{"chunker", "pgregory.net/rapid", false, false},
		{"chunker", "pgregory.net/rapid", true, true},
		{"repo", "varve/index", false, true},
		{"repo", "varve/snapshot", false, false},
		{"repo", "varve/snapshot", true, false},
		{"repo", "github.com/dgraph-io/badger/v4", false, false},
		{"repo/storage", "varve/repo", false, false},
		{"snapshot", "varve/repo", false, false},
		{"snapshot", "varve/repo", true, true},
	} {
		if problem := rules[c.folder].check(c.folder, c.path, c.test); (problem == "") != c.ok {
			t.Errorf("%s importing %s (in a test: %v): %q", c.folder, c.path, c.test, problem)
		}
	}
}

// TestOnlyProgramsPrint: a package returns what it has to say; the command decides where it goes.
func TestOnlyProgramsPrint(t *testing.T) {
	sources(t, parser.SkipObjectResolution, func(name string, fset *token.FileSet, file *ast.File) {
		first, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if slices.Contains(mayPrint, first) || strings.HasSuffix(name, "_test.go") {
			return
		}
		printing := func(pos token.Pos, what string) {
			t.Errorf("%s: %s: only the command prints", fset.Position(pos), what)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
					printing(n.Pos(), f.Name)
				}
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				switch what := pkg.Name + "." + n.Sel.Name; what {
				case "os.Stdout", "os.Stderr", "fmt.Print", "fmt.Printf", "fmt.Println",
					"log.Print", "log.Printf", "log.Println", "log.Fatal", "log.Fatalf", "log.Fatalln":
					printing(n.Pos(), what)
				}
			}
			return true
		})
	})
}

// sources calls f for every Go file of the module, whatever system it is built for. Folders that begin with a dot and
// testdata are left out, as the go command does.
func sources(t *testing.T, mode parser.Mode, f func(name string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, mode)
		if err != nil {
			return err
		}
		f(name, fset, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
