//! Aligned columns with a head, and aligned pairs.

use crate::style::Style;

const GAP: &str = "  ";

/// Rows under a head. Cells must be escaped.
#[derive(Debug)]
pub struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
    shows_empty: bool,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub fn new(head: [&'static str; N]) -> Self {
        Self {
            head,
            rows: Vec::new(),
            shows_empty: true,
        }
    }

    /// Leaves out columns in which no row says anything.
    #[must_use]
    pub fn without_empty_columns(mut self) -> Self {
        self.shows_empty = false;
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The whole, with a line feed at its end; nothing at all where there is no row.
    pub fn render(&self, style: Style) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut widths = [0; N];
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        // A column without a width is not shown.
        for (widest, head) in widths.iter_mut().zip(self.head) {
            if *widest > 0 || self.shows_empty {
                *widest = (*widest).max(width(head));
            }
        }
        let mut text = style.head(&line(&self.head.map(str::to_owned), &widths)) + "\n";
        for row in &self.rows {
            text += &(line(row, &widths) + "\n");
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, widest) in cells.iter().zip(widths).filter(|(_, widest)| **widest > 0) {
        line += cell;
        line += &" ".repeat(widest.saturating_sub(width(cell)));
        line += GAP;
    }
    line.truncate(line.trim_end().len());
    line
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// `name  value`, one a line, the values aligned. Pairs without a value are left out.
pub fn pairs(pairs: &[(&str, String)], style: Style) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let widest = shown.clone().map(|(name, _)| width(name)).max();
    let widest = widest.unwrap_or_default();
    shown
        .map(|(name, value)| {
            let space = " ".repeat(widest - width(name));
            format!("{}{space}{GAP}{value}\n", style.head(name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(["NAME", "STATE"]);
        assert_eq!(table.render(Style::Plain), "");
        table.row(["ä".into(), "running".into()]);
        table.row(["longer".into(), String::new()]);
        assert_eq!(
            table.render(Style::Plain),
            "NAME    STATE\nä       running\nlonger\n"
        );
        let mut table = Table::new(["NAME", "TAGS", "STATE"]).without_empty_columns();
        table.row(["a".into(), String::new(), "running".into()]);
        assert_eq!(table.render(Style::Plain), "NAME  STATE\na     running\n");
    }

    #[test]
    fn pairs_without_a_value_are_left_out() {
        let text = pairs(
            &[
                ("name", "a".into()),
                ("image", String::new()),
                ("id", "b".into()),
            ],
            Style::Plain,
        );
        assert_eq!(text, "name  a\nid    b\n");
    }
}
