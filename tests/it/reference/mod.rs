//! Reference pages of `docs/reference/`: generated from the code, one module for each page, and compared with the files.
//! `RENEW=1 cargo test --test it reference` writes the files. `charts/sync` writes the page about the values of the charts.
//!
//! A fact that the code states is read from there: definitions of options, tables, doc comments, the metrics of a running
//! service. Texts that only a page needs are in the module of the page, and have to fit the code exactly.

mod account_errors;
mod commands;
mod headers;
mod log_events;
mod metrics;
mod options;
mod policy_file;
mod reasons;

use std::fs;
use std::path::Path;

/// Command that writes the pages.
const RENEW: &str = "RENEW=1 cargo test --test it reference";

/// Compares a page with its file, or writes the file if `RENEW` is set. `about` says what the page is for.
fn page(name: &str, title: &str, about: &str, body: &str) {
    let note = format!("Generated from the code: do not edit; renew with `{RENEW}`.");
    let text = format!("# {title}\n\n{about}\n\n{note}\n\n{}\n", body.trim());
    let path = root().join("docs/reference").join(name);
    if std::env::var_os("RENEW").is_some() {
        assert!(std::env::var_os("CI").is_none(), "CI compares the pages and does not write them");
        fs::write(&path, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, (found, expected))) = found
        .lines()
        .chain([""])
        .zip(text.lines().chain([""]))
        .enumerate()
        .find(|(_, (found, expected))| found != expected)
    {
        let line = number + 1;
        panic!("docs/reference/{name} is out of date: {RENEW}\nline {line} is:  {found}\nexpected: {expected}");
    }
    assert_eq!(found.len(), text.len(), "docs/reference/{name} is out of date: {RENEW}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Source file below `src/`.
fn source(path: &str) -> String {
    fs::read_to_string(root().join("src").join(path)).unwrap_or_else(|error| panic!("src/{path}: {error}"))
}

/// Makes a text fit into a cell of a table, or a paragraph: one line, no bars outside of code, no HTML.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(number, part)| {
        let part = part.replace('|', "\\|");
        if number % 2 == 0 { part.replace('<', "&lt;") } else { part }
    });
    let parts: Vec<String> = parts.collect();
    parts.join("`").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text as code, or a dash if it is empty.
fn code(text: &str) -> String {
    let text = text.replace('|', "\\|");
    match text.as_str() {
        "" => "–".into(),
        _ if text.contains('`') => format!("`` {text} ``"),
        _ => format!("`{text}`"),
    }
}

/// Texts as code, separated by commas.
fn codes<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| code(text.as_ref())).collect();
    if texts.is_empty() { "–".into() } else { texts.join(", ") }
}

/// Table with these columns.
fn table<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = rows.into_iter().map(|cells| row(&cells)).collect();
    format!("{}|{}\n{rows}", row(&columns.map(str::to_owned)), "---|".repeat(N))
}

/// Fails unless the first column of a table of texts has exactly these names, each once. `what` describes the names.
fn assert_names<'n>(found: impl IntoIterator<Item = &'n str>, expected: impl IntoIterator<Item = &'n str>, what: &str) {
    let sorted = |names: Vec<&'n str>| {
        let mut names = names;
        names.sort_unstable();
        names
    };
    let (found, expected) = (sorted(found.into_iter().collect()), sorted(expected.into_iter().collect()));
    let missing: Vec<_> = expected.iter().filter(|name| !found.contains(name)).collect();
    let unknown: Vec<_> = found.iter().filter(|name| !expected.contains(name)).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{what}: no text for {missing:?}, and texts for nothing: {unknown:?}"
    );
    assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "{what}: two texts for one name: {found:?}");
}
