package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"varve/repo"
)

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "list, add, remove and change passwords",
		Long: `The key command manages the keys of a repository. Each key is one password that opens it. The data stays encrypted as it
is: somebody who copied the repository while a key was there can still use that key's password on the copy.` + exits(exitNoRepository, exitWrongPassword),
		Example: `  varve key list
  varve key add --label "spare, in the safe"
  varve key passwd
  varve key remove 1a2b3c4d`,
	}
	c.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyPasswdCommand())
	return c
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "list keys",
		Long:    "The key list command lists the keys of the repository. The one that opened it has a star." + exits(exitNoRepository, exitWrongPassword),
		Example: "  varve key list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				keys, err := r.Keys(c.Context(), func(err error) { a.ui.warn("list", "keys", err) })
				if err != nil {
					return err
				}
				objects := []map[string]any{}
				var rows [][]string
				for _, k := range keys {
					objects = append(objects, map[string]any{"current": k.Current, "id": hexID(k.ID), "userName": k.User, "hostName": k.Host,
						"created": k.Created, "label": k.Label, "kdf": k.Name, "kdf_parameters": k.KDF})
					star := " "
					if k.Current {
						star = "*"
					}
					rows = append(rows, []string{star + shortID(k.ID), k.User, k.Host, stamp(k.Created), fmt.Sprintf("%s, %d MiB", k.Name, k.KDF.Memory>>10), k.Label})
				}
				a.ui.object(objects)
				a.ui.table([]string{" ID", "User", "Host", "Created", "Work", "Label"}, rows)
				return nil
			})
		},
	}
}

// newPassword holds the flags that say where a new password comes from.
type newPassword struct {
	file, command, label, kdf string
	none                      bool
}

func (n *newPassword) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.file, "new-password-file", "", "`file` that holds the new password")
	f.StringVar(&n.command, "new-password-command", "", "`command` that prints the new password")
	f.BoolVar(&n.none, "new-insecure-no-password", false, "the new password is empty: whoever can read the repository can read the disks")
	f.StringVar(&n.label, "label", "", "`text` to remember the key by; it is not encrypted")
	f.StringVar(&n.kdf, "kdf", "standard", "work that a password costs to try: standard (64 MiB) or strong (256 MiB)")
}

// read returns the new password and how it is to be kept.
func (n *newPassword) read(ctx context.Context, a *app) ([]byte, repo.KDF, error) {
	kdf, err := parseKDF(n.kdf)
	if err != nil {
		return nil, kdf, err
	}
	password, err := a.passwordFrom(ctx, source{file: n.file, command: n.command, none: n.none}, "new password: ", true)
	return password, kdf, err
}

func (a *app) keyAddCommand() *cobra.Command {
	var n newPassword
	c := &cobra.Command{
		Use:     "add",
		Short:   "add a password",
		Long:    "The key add command lets another password open the repository." + exits(exitNoRepository, exitWrongPassword),
		Example: "  varve key add\n  varve key add --new-password-file spare.txt --label spare",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				password, kdf, err := n.read(c.Context(), a)
				if err != nil {
					return err
				}
				id, err := r.AddKey(c.Context(), password, kdf, n.label)
				if err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "key_added", "id": hexID(id)})
				a.ui.say("added key %s", shortID(id))
				return nil
			})
		},
	}
	n.add(c)
	return c
}

func (a *app) keyPasswdCommand() *cobra.Command {
	var n newPassword
	c := &cobra.Command{
		Use:         "passwd",
		Short:       "change the password",
		Long:        "The key passwd command replaces the key that opened the repository by one for a new password." + exits(exitNoRepository, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example:     "  varve key passwd",
		Args:        cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				password, kdf, err := n.read(c.Context(), a)
				if err != nil {
					return err
				}
				id, err := r.ChangePassword(c.Context(), password, kdf, n.label)
				if err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "key_changed", "id": hexID(id)})
				a.ui.say("the new password is key %s; the old one no longer opens the repository", shortID(id))
				return nil
			})
		},
	}
	n.add(c)
	return c
}

func (a *app) keyRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "remove KEY",
		Short:       "remove a password",
		Long:        "The key remove command takes away a key, named by the start of its id. The one in use cannot be removed." + exits(exitNoRepository, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example:     "  varve key remove 1a2b3c4d",
		Args:        cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				keys, err := r.Keys(c.Context(), func(err error) { a.ui.warn("list", "keys", err) })
				if err != nil {
					return err
				}
				id, err := findKey(keys, args[0])
				if err != nil {
					return err
				}
				if err := r.RemoveKey(c.Context(), id); err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "key_removed", "id": hexID(id)})
				a.ui.say("removed key %s", shortID(id))
				return nil
			})
		},
	}
}

// findKey returns the id of the one key that begins with name, or is it in full: a damaged key is not listed.
func findKey(keys []repo.Key, name string) (repo.ID, error) {
	if id, err := repo.ParseID(name); err == nil {
		return id, nil
	}
	var found []repo.ID
	for _, k := range keys {
		if name != "" && strings.HasPrefix(hexID(k.ID), name) {
			found = append(found, k.ID)
		}
	}
	if len(found) != 1 {
		return repo.ID{}, fmt.Errorf("%q is the start of %s; 'varve key list' shows them", name, count(int64(len(found)), "key", "keys"))
	}
	return found[0], nil
}
