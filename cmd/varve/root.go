package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/repo"
	"varve/repo/storage"
)

// Exit statuses. docs/man and the help of each command name them.
const (
	statusFailed        = 1
	statusIncomplete    = 3
	statusNoRepository  = 10
	statusLocked        = 11
	statusWrongPassword = 12
	statusUnsafe        = 13
	statusDiffers       = 14
	statusAppendOnly    = 15
	statusInterrupted   = 130
)

var (
	errIncomplete = errors.New("some of the source could not be read: the snapshot has zeros there")
	errDiffers    = errors.New("the disk differs from the snapshot")
	errDamaged    = errors.New("some of the snapshot could not be read")
	errProblems   = errors.New("the repository has errors")
	errInterrupt  = errors.New("interrupted")
)

// app holds what all commands share.
type app struct {
	ui *ui

	repository, repositoryFile    string
	passwordFile, passwordCommand string
	insecureNoPassword            bool
	cacheDir                      string
	noCache                       bool
	appendOnly                    bool
	retryLock                     time.Duration
}

// run executes one command line and returns the exit status.
func run(args []string) int {
	a := &app{ui: newUI()}
	ctx, stop := interruptible()
	defer stop()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		err = errInterrupt
	}
	code := exitStatus(err)
	if code != 0 {
		a.ui.fail(code, err)
	}
	return code
}

// exitStatus translates an error into what scripts decide by.
func exitStatus(err error) int {
	var locked *repo.LockedError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupt):
		return statusInterrupted
	case errors.Is(err, errIncomplete):
		return statusIncomplete
	case errors.Is(err, repo.ErrNoRepository):
		return statusNoRepository
	case errors.As(err, &locked):
		return statusLocked
	case errors.Is(err, repo.ErrWrongPassword):
		return statusWrongPassword
	case errors.Is(err, image.ErrUnsafe):
		return statusUnsafe
	case errors.Is(err, errDiffers):
		return statusDiffers
	case errors.Is(err, storage.ErrAppendOnly):
		return statusAppendOnly
	}
	return statusFailed
}

// interruptible returns a context that ends with the first interrupt or termination signal. The second one ends the
// process at once.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(statusInterrupted)
	}()
	return ctx, cancel
}

// root returns the whole tree of commands.
func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "varve",
		Short: "keep many full images of disks in little space",
		Long: `varve makes snapshots of whole disks: devices or image files. Each snapshot stores only what no earlier one has, and
restores as a whole disk.

A repository is named with --repo or VARVE_REPOSITORY. Its password comes from --password-file, --password-command,
VARVE_PASSWORD, VARVE_PASSWORD_FILE or VARVE_PASSWORD_COMMAND; otherwise varve asks for it.

ENVIRONMENT

    VARVE_REPOSITORY        where the repository is (--repo)
    VARVE_REPOSITORY_FILE   file that holds that (--repository-file)
    VARVE_PASSWORD          the password of the repository
    VARVE_PASSWORD_FILE     file that holds it (--password-file)
    VARVE_PASSWORD_COMMAND  command that prints it (--password-command)
    VARVE_CACHE_DIR         folder of caches (--cache-dir)
    VARVE_APPEND_ONLY       only ever add to the repository (--append-only), when it is not empty, 0 or false
    VARVE_HOST              host of new snapshots (backup --host)
    VARVE_COMPRESSION       level of compression (--compression)
    VARVE_PROGRESS_FPS      pictures of progress a second, 10 at first
    GOMAXPROCS              how many processors to use`,
		Example: `  varve -r /mnt/backup init
  varve -r /mnt/backup backup /dev/sda
  varve -r /mnt/backup snapshots
  varve -r /mnt/backup restore latest --target disk.img`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Version:           programVersion(),
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := a.mayRun(c); err != nil {
				return err
			}
			if a.ui.quiet && a.ui.verbose {
				return errors.New("--quiet and --verbose exclude each other")
			}
			return nil
		},
	}
	c.SetOut(a.ui.out)
	c.SetErr(a.ui.err)
	c.SetVersionTemplate("{{.Version}}\n")
	f := c.PersistentFlags()
	f.StringVarP(&a.repository, "repo", "r", "", "`folder` of the repository (VARVE_REPOSITORY)")
	f.StringVar(&a.repositoryFile, "repository-file", "", "`file` that holds the place of the repository (VARVE_REPOSITORY_FILE)")
	f.StringVarP(&a.passwordFile, "password-file", "p", "", "`file` that holds the password (VARVE_PASSWORD_FILE)")
	f.StringVar(&a.passwordCommand, "password-command", "", "`command` that prints the password (VARVE_PASSWORD_COMMAND)")
	f.BoolVar(&a.insecureNoPassword, "insecure-no-password", false, "use an empty password: whoever can read the repository can read the disks")
	f.StringVar(&a.cacheDir, "cache-dir", "", "`folder` of caches (VARVE_CACHE_DIR)")
	f.BoolVar(&a.noCache, "no-cache", false, "keep no cache on this machine")
	f.BoolVar(&a.appendOnly, "append-only", false, "only ever add to the repository: replace and remove nothing in it (VARVE_APPEND_ONLY)")
	f.DurationVar(&a.retryLock, "retry-lock", 0, "try again for this `time` when the repository is locked, as 30s or 5m")
	f.BoolVar(&a.ui.json, "json", false, "write JSON for programs")
	f.BoolVarP(&a.ui.quiet, "quiet", "q", false, "show no progress and no summary")
	f.BoolVarP(&a.ui.verbose, "verbose", "v", false, "show more")
	_ = c.MarkPersistentFlagDirname("repo")
	_ = c.MarkPersistentFlagDirname("cache-dir")

	c.AddGroup(&cobra.Group{ID: "disks", Title: "Disks and snapshots:"}, &cobra.Group{ID: "repository", Title: "The repository:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, child := range commands {
			child.GroupID = group
			c.AddCommand(child)
		}
	}
	add("disks", a.backupCommand(), a.snapshotsCommand(), a.statsCommand(), a.diffCommand(), a.restoreCommand(), a.verifyCommand(), a.disksCommand(), a.lsCommand(), a.findCommand(), a.historyCommand(), a.dumpCommand(),
		a.forgetCommand(), a.tagCommand(), a.holdCommand(), a.releaseCommand())
	add("repository", a.initCommand(), a.pruneCommand(), a.checkCommand(), a.repairCommand(), a.keyCommand(), a.unlockCommand(), a.cacheCommand())
	c.AddCommand(a.versionCommand())
	return c
}

// removes marks commands that replace or remove what is stored.
var removes = map[string]string{"removes": "yes"}

// mayRun refuses commands that remove, where nothing may be removed, before they begin. A dry run removes nothing.
func (a *app) mayRun(c *cobra.Command) error {
	env := os.Getenv("VARVE_APPEND_ONLY")
	if !c.Flags().Changed("append-only") && env != "" && env != "0" && !strings.EqualFold(env, "false") {
		a.appendOnly = true
	}
	dry := c.Flags().Lookup("dry-run")
	if !a.appendOnly || c.Annotations["removes"] == "" || dry != nil && dry.Value.String() == "true" {
		return nil
	}
	return fmt.Errorf("%s replaces or removes what is stored, and from here things are only added (--append-only, VARVE_APPEND_ONLY): %w; run it where that is allowed", c.CommandPath(), storage.ErrAppendOnly)
}

// exits writes the EXIT STATUS section of a help text: 0, 1, 130 and those that are named.
func exits(which ...string) string {
	lines := append([]string{"0  done", "1  failed"}, which...)
	lines = append(lines, "130  interrupted")
	for i, line := range lines {
		code, meaning, _ := strings.Cut(line, "  ")
		lines[i] = "    " + code + strings.Repeat(" ", 5-len(code)) + meaning
	}
	return "\n\nEXIT STATUS\n\n" + strings.Join(lines, "\n")
}

// The statuses of every command that opens a repository.
var (
	exitNoRepository  = "10  there is no repository"
	exitLocked        = "11  the repository is locked by another process"
	exitWrongPassword = "12  the password is wrong"
	exitAppendOnly    = "15  refused: from here things are only added (--append-only)"
)
