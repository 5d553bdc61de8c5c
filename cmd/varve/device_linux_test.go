package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDevices runs testdata/device/*.txt, scripts as those of TestScripts, with two more commands:
//
//	loop NAME FILE [losetup flag]…   sets $NAME to a loop device of a file, which goes when the script ends
//	mounted DEVICE FOLDER            mounts a device, until the script ends
func TestDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: backup and restore of devices: needs root")
	}
	for _, tool := range []string{"losetup", "mount", "mke2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: backup and restore of devices: needs %s", tool)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("SKIPPED: backup and restore of devices: needs /dev/loop-control")
	}
	p := scripts("device")
	p.Cmds["loop"] = func(ts *testscript.TestScript, neg bool, args []string) {
		usage(ts, neg, args, 2, "loop NAME FILE [FLAG]...")
		out, err := exec.Command("losetup", append(args[2:], "--find", "--show", ts.MkAbs(args[1]))...).CombinedOutput()
		if err != nil {
			ts.Fatalf("losetup: %v: %s", err, out)
		}
		device := strings.TrimSpace(string(out))
		ts.Defer(func() {
			if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
				t.Errorf("losetup: %v: %s", err, out)
			}
		})
		ts.Setenv(args[0], device)
	}
	p.Cmds["mounted"] = func(ts *testscript.TestScript, neg bool, args []string) {
		usage(ts, neg, args, 2, "mounted DEVICE FOLDER")
		folder := ts.MkAbs(args[1])
		if out, err := exec.Command("mount", args[0], folder).CombinedOutput(); err != nil {
			ts.Fatalf("mount: %v: %s", err, out)
		}
		ts.Defer(func() {
			if out, err := exec.Command("umount", folder).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
		})
	}
	testscript.Run(t, p)
}
