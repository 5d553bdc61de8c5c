package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"varve/chunker"
	"varve/repo"
	"varve/repo/storage"
)

// settings is what the config of a repository keeps for this program.
type settings struct {
	Chunker chunker.Params `json:"chunker"`
	repo.Settings
}

// kdfs are the names of amounts of work that a password costs to try.
var kdfs = map[string]repo.KDF{"standard": repo.StandardKDF, "strong": repo.StrongKDF}

func parseKDF(name string) (repo.KDF, error) {
	k, found := kdfs[name]
	if !found {
		return k, fmt.Errorf("--kdf %q: it is standard or strong", name)
	}
	return k, nil
}

// vacant reports why no repository can be made at place: one is there.
func vacant(ctx context.Context, place string) error {
	st, err := storage.OpenLocal(place, false)
	if errors.Is(err, storage.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	there, err := exists(ctx, st)
	if err == nil && there {
		err = fmt.Errorf("%w at %s", repo.ErrExists, place)
	}
	return err
}

func (a *app) initCommand() *cobra.Command {
	var kdf, parity string
	c := &cobra.Command{
		Use:   "init",
		Short: "make a new repository",
		Long: `The init command makes a new repository, whose folder must be new or empty.

Everything in it is encrypted under a random key, and the key under your password. There is no other way in: a lost
password is lost data. Store it where you will find it when this machine is gone.

With --parity 5% each pack gets so much Reed-Solomon parity. It makes up for flipped bits, and for sectors that the disk
under the repository cannot read any more: a few in every pack hurt nothing. It does not make up for packs or disks
that are lost as a whole. It holds for all that is ever written to this repository, and cannot be changed later.` + exits(),
		Example: `  varve -r /mnt/backup init
  varve -r /mnt/backup init --parity 5%
  varve -r /mnt/backup --password-file secret.txt init --kdf strong`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			k, err := parseKDF(kdf)
			if err != nil {
				return err
			}
			percent, err := parseParity(parity)
			if err != nil {
				return err
			}
			place, err := a.location()
			if err != nil {
				return err
			}
			if err := vacant(ctx, place); err != nil { // before somebody thinks of a password
				return err
			}
			params, err := chunker.Default()
			if err != nil {
				return err
			}
			password, err := a.password(ctx, true)
			if err != nil {
				return err
			}
			st, err := storage.OpenLocal(place, true)
			if err != nil {
				return err
			}
			r, err := repo.Init(ctx, st, repo.Options{Password: password, Logf: a.ui.note}, k, settings{params, repo.Settings{Parity: percent}})
			if err != nil {
				return err
			}
			defer r.Close()
			a.ui.object(map[string]any{"message_type": "initialized", "id": r.ID(), "repository": r.Location(), "parity": percent})
			a.ui.say("made repository %s at %s", r.ID()[:10], r.Location())
			if percent > 0 {
				a.ui.say("its packs get %d%% of parity", percent)
			}
			if a.insecureNoPassword {
				a.ui.say("\nIt has no password: whoever can read it can read the disks.")
			} else {
				a.ui.say("\nRemember the password: without it nothing in the repository can be read again.\nA lost password is lost data.")
			}
			return nil
		},
	}
	c.Flags().StringVar(&kdf, "kdf", "standard", "work that a password costs to try: standard (64 MiB) or strong (256 MiB)")
	c.Flags().StringVar(&parity, "parity", "0%", "parity that packs get, a `percentage` of their data")
	return c
}
