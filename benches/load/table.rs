//! Markdown tables on standard output.

/// Prints a heading.
pub(crate) fn heading(text: &str) {
    println!("\n### {text}\n");
}

/// Table that is printed row by row, so that a long run shows where it is.
pub(crate) struct Table {
    columns: usize,
}

impl Table {
    /// Prints the head.
    pub(crate) fn new(columns: &[&str]) -> Self {
        println!("| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
        Self { columns: columns.len() }
    }

    /// Prints a row.
    pub(crate) fn row(&self, cells: &[String]) {
        assert_eq!(cells.len(), self.columns, "{cells:?}");
        println!("| {} |", cells.join(" | "));
    }
}

/// Requests per second with a separator of thousands.
pub(crate) fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let first = digits.len() % 3;
    let groups = digits.bytes().enumerate().flat_map(|(at, digit)| {
        let separator = (at > 0 && at % 3 == first).then_some(',');
        separator.into_iter().chain([char::from(digit)])
    });
    groups.collect()
}
