package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"varve/repo"
	"varve/repo/storage"
)

// location returns where the repository is: the flags come before the environment.
func (a *app) location() (string, error) {
	if a.repository != "" && a.repositoryFile != "" {
		return "", errors.New("--repo and --repository-file exclude each other")
	}
	place, file := a.repository, a.repositoryFile
	if place == "" && file == "" {
		place, file = os.Getenv("VARVE_REPOSITORY"), os.Getenv("VARVE_REPOSITORY_FILE")
	}
	if place == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading where the repository is: %w", err)
		}
		place = strings.TrimSpace(string(text))
	}
	if place == "" {
		return "", errors.New("which repository? name it with --repo or VARVE_REPOSITORY")
	}
	return place, nil
}

// password returns the password of the repository, or a new one, which is asked for twice.
func (a *app) password(ctx context.Context, isNew bool) ([]byte, error) {
	return a.passwordFrom(ctx, source{
		file: a.passwordFile, command: a.passwordCommand, none: a.insecureNoPassword, environment: true,
	}, "password of the repository: ", isNew)
}

// source says where a password may come from.
type source struct {
	file, command string
	none          bool // --insecure-no-password and the like
	environment   bool // look there too
}

func (a *app) passwordFrom(ctx context.Context, s source, prompt string, isNew bool) ([]byte, error) {
	given := 0
	for _, is := range []bool{s.file != "", s.command != "", s.none} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, errors.New("give a password file, a password command, or --insecure-no-password, not several of them")
	}
	if s.none {
		return nil, nil
	}
	if given == 0 && s.environment {
		if password := os.Getenv("VARVE_PASSWORD"); password != "" {
			return []byte(password), nil
		}
		s.file, s.command = os.Getenv("VARVE_PASSWORD_FILE"), os.Getenv("VARVE_PASSWORD_COMMAND")
	}
	var password []byte
	var err error
	switch {
	case s.command != "":
		password, err = a.runPasswordCommand(ctx, s.command)
	case s.file != "":
		if password, err = os.ReadFile(s.file); err != nil {
			err = fmt.Errorf("reading the password: %w", err)
		}
	case !a.ui.interactive():
		err = errors.New("no password was given, and there is no terminal to ask at: use --password-file, --password-command or VARVE_PASSWORD, or --insecure-no-password for a repository without one")
	default:
		if password, err = a.ui.secret(ctx, prompt); err == nil && isNew {
			var again []byte
			if again, err = a.ui.secret(ctx, "the same again: "); err == nil && !bytes.Equal(password, again) {
				err = errors.New("the two passwords are not the same")
			}
		}
	}
	if err != nil {
		return nil, err
	}
	password = trimPassword(password)
	if len(password) == 0 {
		return nil, errors.New("the password is empty: if that is what you want, say so with --insecure-no-password")
	}
	return password, nil
}

// trimPassword takes away what editors and commands put around a password: a byte order mark, the end of the line.
func trimPassword(p []byte) []byte {
	return bytes.TrimRight(bytes.TrimPrefix(p, []byte("\xef\xbb\xbf")), "\r\n")
}

// runPasswordCommand returns what a command prints. It is split into words as a shell does, but no shell runs it.
func (a *app) runPasswordCommand(ctx context.Context, command string) ([]byte, error) {
	words, err := shellWords(command)
	if err != nil {
		return nil, fmt.Errorf("the password command: %w", err)
	}
	if len(words) == 0 {
		return nil, errors.New("the password command is empty")
	}
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("the password command %s failed: %w", words[0], err)
	}
	return out, nil
}

// caches returns the folder of caches, empty when there is to be none.
func (a *app) caches() (string, error) {
	if a.noCache {
		return "", nil
	}
	if a.cacheDir != "" {
		return filepath.Abs(a.cacheDir)
	}
	if dir := os.Getenv("VARVE_CACHE_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		a.ui.note("no cache is kept: %v", err)
		return "", nil
	}
	return filepath.Join(dir, "varve"), nil
}

// passwordTries is how often a user at a terminal may try.
const passwordTries = 3

// open opens the repository. The caller closes it.
func (a *app) open(ctx context.Context) (*repo.Repository, error) {
	place, err := a.location()
	if err != nil {
		return nil, err
	}
	local, err := storage.OpenLocal(place, false)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s: is the location right? 'varve init' makes a new one", repo.ErrNoRepository, place)
	}
	if err != nil {
		return nil, err
	}
	var st storage.Storage = local
	if a.appendOnly {
		st = storage.AppendOnly{Storage: local}
	}
	o := repo.Options{Logf: a.ui.note, Progress: a.ui.stepTo}
	if o.CacheDir, err = a.caches(); err != nil {
		return nil, err
	}
	// Nobody should have to type a password to learn that there is no repository.
	if there, err := exists(ctx, st); err != nil {
		return nil, err
	} else if !there {
		return nil, fmt.Errorf("%w at %s: is the location right? 'varve init' makes a new one", repo.ErrNoRepository, place)
	}
	for try := 1; ; try++ {
		if o.Password, err = a.password(ctx, false); err != nil {
			return nil, err
		}
		r, err := repo.Open(ctx, st, o)
		if errors.Is(err, repo.ErrWrongPassword) && a.asked() && try < passwordTries {
			a.ui.warn("open", "", errors.New("wrong password, try again"))
			continue
		}
		if err == nil {
			a.meet(r)
		}
		return r, err
	}
}

// asked reports whether the password came from the user at the terminal.
func (a *app) asked() bool {
	return a.passwordFile == "" && a.passwordCommand == "" && !a.insecureNoPassword && os.Getenv("VARVE_PASSWORD") == "" &&
		os.Getenv("VARVE_PASSWORD_FILE") == "" && os.Getenv("VARVE_PASSWORD_COMMAND") == ""
}

// exists reports whether st holds anything that opens as a repository.
func exists(ctx context.Context, st storage.Storage) (bool, error) {
	for _, name := range []string{"config", "config.copy"} {
		_, err := st.Get(ctx, name, 0, -1, nil)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, storage.ErrNotExist) {
			return false, fmt.Errorf("looking for a repository at %s: %w", st.Location(), err)
		}
	}
	return false, nil
}

// with opens the repository, runs f and closes it.
func (a *app) with(ctx context.Context, f func(*repo.Repository) error) error {
	r, err := a.open(ctx)
	if err != nil {
		return err
	}
	err = f(r)
	a.ui.endSteps()
	if closeErr := r.Close(); closeErr != nil {
		a.ui.note("closing the index: %v", closeErr)
	}
	return err
}

// patiently runs f, again and again while the repository is locked and --retry-lock allows.
func (a *app) patiently(ctx context.Context, f func() error) error {
	until := time.Now().Add(a.retryLock)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := f()
		var locked *repo.LockedError
		if !errors.As(err, &locked) || time.Now().Add(wait).After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
