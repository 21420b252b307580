//! `completions` and `man`: the command line describes itself. `make install` keeps what they print.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use rocmforge::{Error, Result};

#[derive(Args)]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Nobody completes a command that is hidden, but clap's generators write them: they are left out.
fn visible() -> clap::Command {
    let whole = crate::Cli::command();
    let commands: Vec<_> = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut cli = clap::Command::new("rocmforge").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = whole.get_about() {
        cli = cli.about(about.clone());
    }
    cli.subcommand_required(true).subcommands(commands)
}

fn print(text: &[u8]) -> Result<()> {
    std::io::stdout().write_all(text).map_err(|e| Error::io("standard output", e))
}

pub fn completions(args: CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "rocmforge", &mut text);
    print(&text)
}

/// One page: the program, then each command with its options.
pub fn man() -> Result<()> {
    let text = page(visible()).map_err(|e| Error::io("the man page", e))?;
    print(&text)
}

fn page(mut cli: clap::Command) -> std::io::Result<Vec<u8>> {
    cli.build();
    let mut text = Vec::new();
    let man = Man::new(cli.clone()).source(format!("rocmforge {}", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let (name, about) = (command.get_name(), command.get_about().map(ToString::to_string).unwrap_or_default());
        writeln!(text, ".SH {}\n{about}.", name.to_uppercase())?;
        let man = Man::new(command.clone());
        for (from, to, render) in [
            (".SH SYNOPSIS", ".PP", Man::render_synopsis_section as fn(&Man, &mut dyn Write) -> std::io::Result<()>),
            (".SH OPTIONS", ".PP", Man::render_options_section),
        ] {
            let mut section = Vec::new();
            render(&man, &mut section)?;
            text.extend(String::from_utf8_lossy(&section).replacen(from, to, 1).into_bytes());
        }
    }
    Ok(text)
}
