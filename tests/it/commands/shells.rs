//! `completions`: real shells accept the scripts, and complete commands, options and values with them.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::service::run;

/// Calls the completion function of bash as the shell does, for the words in `$@`, and prints the candidates.
const BASH: &str = r#"
set -eu
source "$SCRIPT"
function=$(complete -p cognito-authz | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMPREPLY=()
"$function" cognito-authz "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Has an interactive zsh on a pseudo terminal complete the line `$LINE`, and prints what the terminal shows. Each command
/// is sent when the prompt shows that the line editor is active.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
settings="fpath=($FOLDER \$fpath); autoload -Uz compinit; compinit -u -D; unsetopt list_ambiguous; LISTMAX=10000"
zpty -w shell "$settings; PS1='is-''prompt '"
zpty -r shell shown '*is-prompt*'
zpty -n -w shell "$LINE"$'\t'
zpty -n -w shell $'\C-u'"echo is-completed"$'\n'
zpty -r shell shown '*is-completed*'
print -r -- "$shown"
zpty -d shell
"#;

fn completions(shell: &str) -> String {
    let (code, script, stderr) = run(&["completions", shell], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{shell}");
    assert!(script.contains("--user-pool-id") && script.contains("check-config"), "{shell}");
    script
}

/// Runs a shell; `None` if this machine does not have it.
#[expect(clippy::print_stderr, reason = "says that a part of the test did not run")]
fn shell(command: &mut Command) -> Option<Output> {
    match command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {} is missing", command.get_program().display());
            None
        }
        Err(error) => panic!("{}: {error}", command.get_program().display()),
    }
}

fn stdout(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Words of a command line, the last of which is completed, and candidates that are offered and that are not.
const CASES: &[(&[&str], &[&str], &[&str])] = &[
    (&["cognito-authz", "check"], &["check-config"], &["serve"]),
    (&["cognito-authz", "re"], &["revoke", "revocations"], &["man"]),
    (&["cognito-authz", "--user"], &["--user-pool-id"], &["--json"]),
    (&["cognito-authz", "check-config", "--conf"], &["--config"], &["--online"]),
    (&["cognito-authz", "explain", "--js"], &["--json"], &["--jti"]),
    (&["cognito-authz", "revocations", "li"], &["list", "lift"], &["revoke"]),
    (&["cognito-authz", "completions", ""], &["bash", "zsh", "fish"], &["powershell"]),
    (&["cognito-authz", "serve", "--log-format", ""], &["text", "json"], &["debug"]),
];

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "cognito-authz", &completions("bash"));
    let Some(checked) = shell(Command::new("bash").args(["-n", &script])) else { return };
    assert_eq!(stdout(&checked), "");
    let driver = write(folder.path(), "driver", &format!("SCRIPT={script}\n{BASH}"));
    for (words, offered, others) in CASES {
        let mut bash = Command::new("bash");
        let found = stdout(&shell(bash.args(["--norc", "--noprofile", &driver]).args(*words)).unwrap());
        let found: Vec<&str> = found.lines().collect();
        assert!(offered.iter().all(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
        assert!(!others.iter().any(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
    }
}

#[test]
fn fish_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "cognito-authz.fish", &completions("fish"));
    let Some(checked) = shell(Command::new("fish").args(["--no-config", "--no-execute", &script])) else { return };
    assert_eq!(stdout(&checked), "");
    for (words, offered, others) in CASES {
        let command = format!("source {script}; complete --do-complete='{}'", words.join(" "));
        let mut fish = Command::new("fish");
        let found = stdout(&shell(fish.args(["--no-config", "--command", &command])).unwrap());
        let found: Vec<&str> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert!(offered.iter().all(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
        assert!(!others.iter().any(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
    }
}

#[test]
fn zsh_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "_cognito-authz", &completions("zsh"));
    let Some(checked) = shell(Command::new("zsh").args(["-f", "-n", &script])) else { return };
    assert_eq!(stdout(&checked), "");
    for (words, offered, _) in CASES {
        let settings = format!("FOLDER={}\nLINE='{}'\n", folder.path().display(), words.join(" "));
        let driver = write(folder.path(), "driver", &format!("{settings}{ZSH}"));
        let Some(shown) = shell(Command::new("timeout").args(["60", "zsh", "-f", &driver])) else { return };
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(offered.iter().all(|candidate| shown.contains(candidate)), "{words:?}: {shown}");
    }
}
