//! Columns as podman lines them up: two spaces between them, none narrower than twelve with its gap, the last one ragged.

/// Rows to be printed under one another.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// The narrowest column, its gap included.
const MIN_WIDTH: usize = 12;
/// Between two columns.
const GAP: usize = 2;

impl Table {
    /// No rows.
    pub fn new() -> Table {
        Table::default()
    }

    /// Adds a row. What is told of an image or a container may have ends of lines and worse in it: in a cell, they are blanks.
    pub fn row<I: IntoIterator<Item = S>, S: Into<String>>(&mut self, cells: I) {
        let cells = cells.into_iter().map(|cell| one_line(cell.into()));
        self.rows.push(cells.collect());
    }

    /// Adds a row from text with tabs between its cells, which is taken as it stands: it comes of the user's own template.
    pub fn tabbed(&mut self, line: &str) {
        self.rows
            .push(line.split('\t').map(str::to_owned).collect());
    }

    /// The text, a line a row.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            // The last cell of a row does not widen its column.
            for (at, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                if widths.len() <= at {
                    widths.push(MIN_WIDTH);
                }
                widths[at] = widths[at].max(cell.chars().count() + GAP);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < row.len() {
                    let pad = widths[at] - cell.chars().count();
                    text.extend(std::iter::repeat_n(' ', pad));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// The text with blanks for its control characters.
fn one_line(text: String) -> String {
    match text.contains(char::is_control) {
        true => text.replace(char::is_control, " "),
        false => text,
    }
}

/// The first `width` characters of a text, with `...` when that is not all of it.
pub fn ellipsis(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_podmans() {
        let mut table = Table::new();
        table.row(["CONTAINER ID", "IMAGE", "NAMES"]);
        assert_eq!(table.render(), "CONTAINER ID  IMAGE       NAMES\n");
        table.row(["2b8ffd109ec9", "localhost/bb:1", "wébserver"]);
        table.tabbed("a\t\tb");
        assert_eq!(
            table.render(),
            "CONTAINER ID  IMAGE           NAMES\n\
             2b8ffd109ec9  localhost/bb:1  wébserver\n\
             a                             b\n"
        );
        assert_eq!(Table::new().render(), "");
    }

    #[test]
    fn cells_neither_break_the_table_nor_speak_to_the_terminal() {
        let mut table = Table::new();
        table.row(["RUN <<EOF\nmake\nEOF", "\u{1b}[2Jx"]);
        assert_eq!(table.render(), "RUN <<EOF make EOF   [2Jx\n");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(ellipsis("sh -c echo hi; echo", 17), "sh -c echo hi; ec...");
        assert_eq!(ellipsis("sleep 1000", 17), "sleep 1000");
    }
}
