//! `completions`: real shells accept the scripts, and complete commands, options and values with them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::service::run;
use crate::support::tool;

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

/// Has an interactive zsh on a pseudo terminal complete a line, and prints what the terminal shows. Each command is sent
/// when the terminal shows that the line editor is active. A terminal that ends before raises an error.
const ZSH: &str = r#"
import os, pty, signal, sys

zsh, folder, line = sys.argv[1:]
signal.alarm(60)
process, terminal = pty.fork()
if process == 0:
    os.execv(zsh, [zsh, "-f", "-i"])

def send(text, wanted):
    shown = b""
    os.write(terminal, text.encode())
    while wanted not in shown:
        shown += os.read(terminal, 65536)
    return shown

settings = f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt list_ambiguous; LISTMAX=10000"
send(f"{settings}; PS1='is-''prompt '\n", b"is-prompt")
shown = send(f"{line}\t\x15echo is-completed\n", b"is-completed")
os.close(terminal)
os.waitpid(process, 0)
sys.stdout.buffer.write(shown)
"#;

fn completions(shell: &str) -> String {
    let (code, script, stderr) = run(&["completions", shell], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{shell}");
    assert!(script.contains("--user-pool-id") && script.contains("check-config"), "{shell}");
    script
}

/// Runs a program with no environment but the `PATH`.
fn output(program: impl AsRef<OsStr>, args: &[&str]) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Command::new(program).args(args).env_clear().env("PATH", path).output().unwrap()
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
    assert_eq!(stdout(&output("bash", &["-n", &script])), "");
    let driver = write(folder.path(), "driver", &format!("SCRIPT={script}\n{BASH}"));
    for (words, offered, others) in CASES {
        let found = stdout(&output("bash", &[&["--norc", "--noprofile", &*driver], *words].concat()));
        let found: Vec<&str> = found.lines().collect();
        assert!(offered.iter().all(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
        assert!(!others.iter().any(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
    }
}

#[test]
fn fish_completes_commands_options_and_values() {
    let Some(fish) = tool::optional("fish", "--shells") else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "cognito-authz.fish", &completions("fish"));
    assert_eq!(stdout(&output(&fish, &["--no-config", "--no-execute", &script])), "");
    for (words, offered, others) in CASES {
        let command = format!("source {script}; complete --do-complete='{}'", words.join(" "));
        let found = stdout(&output(&fish, &["--no-config", "--command", &command]));
        let found: Vec<&str> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert!(offered.iter().all(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
        assert!(!others.iter().any(|candidate| found.contains(candidate)), "{words:?}: {found:?}");
    }
}

#[test]
fn zsh_completes_commands_options_and_values() {
    let Some(zsh) = tool::optional("zsh", "--shells") else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "_cognito-authz", &completions("zsh"));
    assert_eq!(stdout(&output(&zsh, &["-f", "-n", &script])), "");
    let (zsh, folder) = (zsh.to_str().unwrap(), folder.path().to_str().unwrap());
    for (words, offered, _) in CASES {
        let shown = stdout(&output(tool::program("python"), &["-c", ZSH, zsh, folder, &words.join(" ")]));
        assert!(offered.iter().all(|candidate| shown.contains(candidate)), "{words:?}: {shown}");
    }
}
