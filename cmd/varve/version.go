package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=1.0.0".
var version string

// programVersion returns the version of this program, from the linker or else from the build.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "show the version of varve",
		Long:    "The version command shows which version of varve this is, and what it was built with and for." + exits(),
		Example: "  varve version\n  varve version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a.ui.object(map[string]any{"message_type": "version", "version": programVersion(), "go_version": runtime.Version(),
				"go_os": runtime.GOOS, "go_arch": runtime.GOARCH})
			a.ui.print("varve %s compiled with %s on %s/%s", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
