package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	env := &cli.Env{
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Getenv:   os.Getenv,
		Screen:   term.IsTerminal(os.Stdout),
		Height:   func() int { return term.Height(os.Stdout) },
		Progress: term.IsTerminal(os.Stderr),
	}
	os.Exit(commands().Run(ctx, env, os.Args[1:]))
}

// commands returns all commands, in the order of the help.
func commands() cli.Table {
	return cli.Table{
		keygenCommand(),
		checkCommand(),
		statusCommand(),
		healthCommand(),
		eventsCommand(),
		membersCommand(),
		membersPromoteCommand(),
		membersDemoteCommand(),
		membersRemoveCommand(),
		membersTransferCommand(),
		rolesCommand(),
		rolesMoveCommand(),
		rolesYieldCommand(),
		rotateSecretCommand(),
		rotateDataCommand(),
		rotateTicketsCommand(),
		evictCommand(),
		upgradeCommand(),
		drainCommand(),
		undrainCommand(),
		debugCommand(),
		inspectCommand(),
		backupCommand(),
		backupVerifyCommand(),
		restoreCommand(),
		recoverCommand(),
		witnessCommand(),
		importCommand(),
		exportCommand(),
		completionCommand(commands),
		versionCommand(),
		cli.HelpCommand(commands),
	}
}
