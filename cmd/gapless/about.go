package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  gapless version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return t.printVersion()
		},
	}
}

func (t terminal) printVersion() error {
	return t.print("gapless %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// version is that of the module, as the go command has put it into the binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

func newCompletion(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print the completion script for bash, fish, powershell or zsh",
		Example: "  source <(gapless completion bash)", ValidArgs: []string{"bash", "fish", "powershell", "zsh"},
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(t.out, true)
			case "fish":
				return root.GenFishCompletion(t.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(t.out)
			}
			return root.GenZshCompletion(t.out)
		},
	}
}
