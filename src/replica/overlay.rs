//! Reads through the layers: a transaction's own changes, those in the journal, those being committed, and
//! SQLite below. The topmost layer that knows a row decides.
//!
//! What is being committed stays a layer until SQLite has all of it, so a reader never sees half a commit.

use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;

use rusqlite::Result;

use super::stored::Stored;
use super::table::{Changes, Table};

/// Rows fetched from SQLite at once.
const PAGE: usize = 1024;

/// Changes above a database, the topmost first.
pub(super) struct Layers<'a> {
    /// Changes, the newest first.
    pub(super) changes: [&'a Changes; 3],
    /// What is stored.
    pub(super) stored: &'a Stored,
}

impl Layers<'_> {
    /// One row.
    pub(super) fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>> {
        let known = self
            .changes
            .iter()
            .find_map(|layer| T::rows(layer).get(key));
        match known {
            Some(value) => Ok(value.clone()),
            None => self.stored.get::<T>(key),
        }
    }

    /// Up to `limit` rows with keys from `start` to `end` (exclusive), in order.
    pub(super) fn range<T: Table>(
        &self,
        start: Bound<T::Key>,
        end: &T::Key,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>> {
        let mut stored = Pages::<T>::new(self.stored, start.clone(), end, limit);
        let bounds = (start.as_ref(), Bound::Excluded(end));
        let mut layers = self
            .changes
            .map(|layer| T::rows(layer).range(bounds).peekable());
        let mut found = Vec::new();
        while found.len() < limit {
            let in_layers = layers.iter_mut().filter_map(|l| l.peek().map(|(k, _)| *k));
            let Some(key) = in_layers.chain(stored.peek()?).min().cloned() else {
                break;
            };
            let below = stored.next_if(&key);
            let above = first_of::<T>(&mut layers, &key);
            if let Some(value) = above.map_or(below, Option::clone) {
                found.push((key, value));
            }
        }
        Ok(found)
    }
}

type Layer<'a, T> = Peekable<btree_map::Range<'a, <T as Table>::Key, Option<<T as Table>::Value>>>;

/// Takes the row of `key` out of each layer, and returns the topmost.
fn first_of<'a, T: Table>(
    layers: &mut [Layer<'a, T>],
    key: &T::Key,
) -> Option<&'a Option<T::Value>> {
    let mut topmost = None;
    for layer in layers {
        let row = layer.next_if(|(k, _)| *k == key);
        topmost = topmost.or(row.map(|(_, value)| value));
    }
    topmost
}

/// Rows of SQLite, fetched a page at a time.
struct Pages<'a, T: Table> {
    stored: &'a Stored,
    /// Where the next page starts; `None` after the last.
    next: Option<Bound<T::Key>>,
    end: &'a T::Key,
    page: Peekable<std::vec::IntoIter<(T::Key, T::Value)>>,
    page_len: usize,
}

impl<'a, T: Table> Pages<'a, T> {
    fn new(stored: &'a Stored, start: Bound<T::Key>, end: &'a T::Key, limit: usize) -> Self {
        Self {
            stored,
            next: Some(start),
            end,
            page: Vec::new().into_iter().peekable(),
            page_len: limit.saturating_add(1).min(PAGE),
        }
    }

    fn peek(&mut self) -> Result<Option<&T::Key>> {
        if self.page.peek().is_none()
            && let Some(start) = self.next.take()
        {
            self.fetch(start)?;
        }
        Ok(self.page.peek().map(|(key, _)| key))
    }

    /// Fetches the page at `start`. An excluded start is asked for and dropped, so that one statement does.
    fn fetch(&mut self, start: Bound<T::Key>) -> Result<()> {
        let (Bound::Included(key) | Bound::Excluded(key)) = &start else {
            return Ok(());
        };
        let mut page = self.stored.range::<T>(key, self.end, self.page_len)?;
        if page.len() == self.page_len {
            self.next = page.last().map(|(key, _)| Bound::Excluded(key.clone()));
        }
        if matches!(&start, Bound::Excluded(key) if page.first().is_some_and(|(k, _)| k == key)) {
            page.remove(0);
        }
        self.page = page.into_iter().peekable();
        Ok(())
    }

    fn next_if(&mut self, key: &T::Key) -> Option<T::Value> {
        let row = self.page.next_if(|(k, _)| k == key);
        row.map(|(_, value)| value)
    }
}
