//! Large files: the time and the memory are about proportional to the size.

use std::fmt::Write;

use super::{read, refused};

/// Returns a file with a policy `m` and these routes.
fn file(routes: impl IntoIterator<Item = String>) -> String {
    let mut text = "policies: {m: {}}\ndefault: m\nroutes:\n".to_owned();
    for route in routes {
        writeln!(text, "- {{{route}, policy: m}}").unwrap();
    }
    text
}

#[test]
fn every_route_that_ties_is_counted() {
    let tie = |path: &str, second: usize, first: usize, line: usize| {
        format!(
            "routes[{second}]: * * {path} could match the same requests as routes[{first}], * * {path}, and neither takes \
             precedence at line {line} column 3"
        )
    };
    let twice = file((0..2).flat_map(|_| (0..30).map(|number| format!("path: /a{number}"))));
    let listed = (0..20).map(|number| tie(&format!("/a{number}"), 30 + number, number, 34 + number));
    let expected: Vec<String> = listed.chain(["and 10 more errors".into()]).collect();
    refused(&twice, &expected.join("\n"));
    // Only the first of the routes that tie is named, and the number of all is right with many routes, too.
    let many = file((0..3000).map(|_| "path: /a".into()));
    let errors = read(&many).err().unwrap();
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 21, "{errors}");
    assert_eq!((lines[0], lines[19]), (&*tie("/a", 1, 0, 5), &*tie("/a", 20, 0, 24)));
    assert_eq!(lines[20], "and 2979 more errors");
}

#[test]
fn every_route_with_an_error_is_counted_once() {
    let wrong: [fn(usize) -> String; 3] = [
        |number| format!("path: '/a{number}*'"),
        |number| format!("path_prefix: /a{number}/"),
        |number| format!("path: /a, path_prefix: /a{number}"),
    ];
    for wrong in wrong {
        let error = read(&file((0..300).map(wrong))).err().unwrap();
        assert_eq!(error.lines().last(), Some("and 280 more errors"), "{error}");
    }
}

#[test]
fn routes_with_too_many_combinations_are_an_error() {
    let names: Vec<String> = (0..6000).map(|number| format!("N{number}")).collect();
    let names = names.join(", ");
    let text = file(["path: /a".to_owned(), format!("host: [{names}], method: [{names}]")]);
    refused(
        &text,
        "routes[1]: the routes up to this one name more combinations of hosts, methods and paths than can be compared; name \
         fewer hosts or methods in one route at line 5 column 3",
    );
}

#[test]
fn aliases_do_not_multiply_the_size_of_a_file() {
    // Aliases that repeat a list of hosts are fine.
    let hosts: Vec<String> = (0..100).map(|number| format!("h{number}")).collect();
    let first = format!("host: &hosts [{}], path: /first", hosts.join(", "));
    let text = file([first].into_iter().chain((0..100).map(|number| format!("host: *hosts, path: /{number}"))));
    assert!(read(&text).is_ok(), "{:?}", read(&text).err());
    // 60 kB that stand for 10^8 values, or for 50 GB of text.
    let list = |item: &str| vec![item; 10_000].join(",");
    let long = "x".repeat(5_000_000);
    for text in [
        format!("pools: &all [{}]\nroutes: [{}]", list("a"), list("*all")),
        format!("pools: &all {long}\nroutes: [{}]", list("*all")),
    ] {
        let error = read(&text).err().unwrap();
        assert!(error.contains("too large if each alias (`*name`) is replaced by the value"), "{error}");
    }
}
