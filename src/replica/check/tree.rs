//! The tree's own rules: every link has both ends, every node is reached from the root by one way for a
//! directory, and link counts are right.

use super::{Checker, Result};
use crate::replica::columns::{Columns, Reader};
use crate::replica::tx::Tx;
use crate::tree::{Name, NodeId, Place, Time};

/// Everything that the root leads to.
const REACHED: &str = "WITH RECURSIVE reached (id) AS (
    VALUES (1) UNION SELECT link.node FROM link JOIN reached ON link.parent = reached.id
)";

impl Checker {
    pub(super) fn tree(&mut self) -> Result<()> {
        self.doomed()?;
        self.links()?;
        self.directories()?;
        self.unreached()?;
        self.link_counts()
    }

    /// Nodes that are there, and on the list of those whose content goes.
    fn doomed(&mut self) -> Result<()> {
        for node in self.ids("SELECT node FROM doomed WHERE node IN (SELECT id FROM node)")? {
            let what = format!("{}: called removed, but it is there", self.path(node));
            self.found(what, |tx| {
                tx.bury(node);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Links from or to nothing.
    fn links(&mut self) -> Result<()> {
        let broken = self.rows(
            "SELECT parent, name FROM link
             WHERE node NOT IN (SELECT id FROM node)
             OR parent NOT IN (SELECT id FROM node WHERE kind = 1) OR node = 1",
            |row| Place::read(&mut Reader::new(row)),
        )?;
        for place in broken {
            let what = format!("{place:?}: an entry without its directory or its node");
            self.found(what, |tx| tx.unlink(&place))?;
        }
        Ok(())
    }

    /// Directories named twice.
    fn directories(&mut self) -> Result<()> {
        let twice = self.ids(
            "SELECT node FROM link JOIN node ON node.id = link.node WHERE node.kind = 1
             GROUP BY link.node HAVING count(*) > 1",
        )?;
        for node in twice {
            let what = format!("{}: a directory with several names", self.path(node));
            self.found(what, |tx| {
                let places = tx.places(node)?;
                places[1..].iter().try_for_each(|place| tx.unlink(place))
            })?;
        }
        Ok(())
    }

    /// Nodes that no way from the root leads to: those without a name, or in a circle.
    fn unreached(&mut self) -> Result<()> {
        loop {
            let lost = format!("{REACHED} SELECT id FROM node WHERE id NOT IN reached");
            let lost = self.ids(&lost)?;
            let nameless = format!(
                "{REACHED} SELECT id FROM node WHERE id NOT IN reached
                 AND id NOT IN (SELECT node FROM link)"
            );
            let mut tops = self.ids(&nameless)?;
            if tops.is_empty() {
                // Only circles are left: one node of one of them opens it.
                tops.extend(lost.first());
            }
            for node in &tops {
                let what = format!("node {node}: nothing leads to it; it belongs in the root");
                let now = self.now;
                self.found(what, |tx| adopt(tx, *node, now))?;
            }
            if tops.is_empty() || !self.repair {
                return Ok(());
            }
        }
    }

    fn link_counts(&mut self) -> Result<()> {
        let wrong = self.rows(
            "SELECT id, nlink, counted FROM (
                SELECT id, nlink, CASE kind WHEN 1
                    THEN 2 + (SELECT count(*) FROM link JOIN node AS child ON child.id = link.node
                              WHERE link.parent = node.id AND child.kind = 1)
                    ELSE (SELECT count(*) FROM link WHERE link.node = node.id)
                END AS counted FROM node
             ) WHERE nlink <> counted",
            |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, u32>(1)?,
                    row.get::<_, u32>(2)?,
                ))
            },
        )?;
        for (id, nlink, counted) in wrong {
            let id = NodeId(id.cast_unsigned());
            let what = format!("{}: link count {nlink} instead of {counted}", self.path(id));
            self.found(what, |tx| {
                if let Some(mut node) = tx.node(id)? {
                    node.nlink = counted;
                    tx.put_node(node)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Gives a lost node a name in the root, and takes other names of a directory from it.
fn adopt(tx: &mut Tx<'_>, node: NodeId, now: Time) -> Result<()> {
    for place in tx.places(node)? {
        tx.unlink(&place)?;
    }
    let place = recovered_place(node);
    tx.link(place.clone(), node)?;
    if tx.node(node)?.is_some_and(|node| !node.scoped) {
        tx.mark_dirty(place, now)?;
    }
    Ok(())
}

/// A name in the root for a node whose own is not known.
pub(super) fn recovered_place(node: NodeId) -> Place {
    let name = Name::new(format!("recovered-{node}").as_bytes());
    Place::new(NodeId::ROOT, name.unwrap_or_else(|_| Name::least()))
}
