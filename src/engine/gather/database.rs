//! Databases are planned with all that belongs to them.

use super::Gatherer;
use crate::replica::{Content, Node, ReplicaError};
use crate::tree::{Kind, Place, may_be_database};

impl Gatherer<'_, '_> {
    /// Takes the whole set where `place` is of one, and notes it.
    pub(super) fn close_over_database(&mut self, place: &Place) -> Result<(), ReplicaError> {
        if self.out.input.databases.contains_key(place) {
            return Ok(());
        }
        let main = match place.database() {
            Some(main) if self.is_set(&main)? => main,
            _ if self.is_set(place)? => place.clone(),
            _ => return Ok(()),
        };
        for member in [main.clone()].into_iter().chain(main.companions()) {
            // What is no file under such a name has nothing to do with it.
            if self.file_at(&member)?.is_some() || !self.is_taken(&member)? {
                let databases = &mut self.out.input.databases;
                databases.insert(member.clone(), main.clone());
                self.todo.push(member);
            }
        }
        Ok(())
    }

    /// Whether a database stands there that has companions anywhere, or that a program writes to, so that it
    /// may get one at any moment. A file that is still empty, or not here, is one if it has companions.
    fn is_set(&self, main: &Place) -> Result<bool, ReplicaError> {
        let Some(node) = self.file_at(main)? else {
            return Ok(false);
        };
        if node.size > 0 && !may_be_database(node.size) {
            return Ok(false);
        }
        if node.size > 0 && node.content == Content::Whole {
            if !self.replica.is_database(&node) {
                return Ok(false);
            }
            if self.replica.opens().writers(node.id) > 0 {
                return Ok(true);
            }
        }
        for companion in main.companions() {
            if self.file_at(&companion)?.is_some()
                || self.view.base(&companion)?.is_some()
                || self.view.observation(&companion)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn file_at(&self, place: &Place) -> Result<Option<Node>, ReplicaError> {
        let id = self.view.child(place.parent, &place.name)?;
        let node = id.map(|id| self.view.node(id)).transpose()?.flatten();
        Ok(node.filter(|node| node.kind == Kind::File && !node.scoped))
    }

    fn is_taken(&self, place: &Place) -> Result<bool, ReplicaError> {
        let id = self.view.child(place.parent, &place.name)?;
        Ok(id.is_some())
    }
}
