package main

import (
	"github.com/spf13/cobra"
	"varve/repo"
)

func (a *app) unlockCommand() *cobra.Command {
	var removeAll bool
	c := &cobra.Command{
		Use:   "unlock",
		Short: "remove leases that nobody holds any more",
		Long: `The unlock command removes the leases of processes that no longer run, and of those that have not been heard of for too
long. That is rarely needed: such leases do not count any more.

With --remove-all it removes all leases. Do so only when you know that no other varve uses the repository: one that does
will notice, and give up before it commits.` + exits(exitNoRepository, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example:     "  varve unlock\n  varve unlock --remove-all",
		Args:        cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				removed, err := r.Unlock(c.Context(), removeAll)
				for _, l := range removed {
					a.ui.say("removed: %s", l)
				}
				if err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "summary", "removed": len(removed)})
				if len(removed) == 0 {
					a.ui.say("there was nothing to remove")
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&removeAll, "remove-all", false, "remove leases that are in use as well")
	return c
}
