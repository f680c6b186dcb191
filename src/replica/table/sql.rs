//! The SQL that every table needs.

/// The statements of one table.
pub(in crate::replica) struct Sql {
    /// Key → value.
    pub(in crate::replica) get: String,
    /// First key, key after the last, limit → keys and values in order.
    pub(in crate::replica) range: String,
    /// Keys and values of all rows, from the first to the last and from the last to the first.
    pub(in crate::replica) all: [String; 2],
    /// How to change it; `None` for indexes, which SQLite changes by itself.
    pub(super) write: Option<Write>,
}

/// How rows are put and removed.
pub(in crate::replica) struct Write {
    pub(super) put: String,
    pub(super) delete: String,
    /// The value's columns hold the key.
    pub(super) whole: bool,
}

impl Sql {
    /// A table whose key and value take different columns.
    pub(super) fn table(table: &str, key: &[&str], value: &[&str]) -> Self {
        let write = Write::new(table, key, &[key, value].concat(), false);
        Self::new(table, key, value, Some(write))
    }

    /// A table whose value holds its key.
    pub(super) fn whole(table: &str, key: &[&str], value: &[&str]) -> Self {
        let write = Write::new(table, key, value, true);
        Self::new(table, key, value, Some(write))
    }

    /// An index of `table`.
    pub(super) fn index_of(table: &str, key: &[&str]) -> Self {
        Self::new(table, key, &[], None)
    }

    fn new(table: &str, key: &[&str], value: &[&str], write: Option<Write>) -> Self {
        let keys = key.join(", ");
        let values = if value.is_empty() {
            "1".to_owned()
        } else {
            value.join(", ")
        };
        let count = key.len();
        let all = |order: &str| {
            let by: Vec<String> = key.iter().map(|key| format!("{key} {order}")).collect();
            let by = by.join(", ");
            format!("SELECT {keys}, {values} FROM {table} ORDER BY {by}")
        };
        Self {
            all: [all("ASC"), all("DESC")],
            get: format!("SELECT {values} FROM {table} WHERE {}", equals(key)),
            range: format!(
                "SELECT {keys}, {values} FROM {table} WHERE ({keys}) >= ({}) AND ({keys}) < ({}) \
                 ORDER BY {keys} LIMIT ?{}",
                parameters(1, count),
                parameters(count + 1, count),
                2 * count + 1,
            ),
            write,
        }
    }
}

impl Write {
    fn new(table: &str, key: &[&str], columns: &[&str], whole: bool) -> Self {
        let updates: Vec<String> = columns
            .iter()
            .filter(|column| !key.contains(column))
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let otherwise = if updates.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", updates.join(", "))
        };
        Self {
            put: format!(
                "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT ({}) DO {otherwise}",
                columns.join(", "),
                parameters(1, columns.len()),
                key.join(", "),
            ),
            delete: format!("DELETE FROM {table} WHERE {}", equals(key)),
            whole,
        }
    }
}

/// `?first, …` for `count` parameters.
fn parameters(first: usize, count: usize) -> String {
    let each: Vec<String> = (first..first + count).map(|i| format!("?{i}")).collect();
    each.join(", ")
}

/// `a = ?1 AND b = ?2`.
fn equals(key: &[&str]) -> String {
    let each: Vec<String> = (1..).zip(key).map(|(i, c)| format!("{c} = ?{i}")).collect();
    each.join(" AND ")
}
