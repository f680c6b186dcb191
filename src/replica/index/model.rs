//! Random updates against plain maps, across commits, re-openings and kills.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{file, killed, open, place, view};
use super::*;
use crate::tree::{BaseEntry, Name, NodeId, Place, Time, Version};

#[derive(Debug, Clone)]
enum Op {
    Put(u64, bool, u64),
    Remove(u64),
    Link(u64, u8, u64),
    Unlink(u64, u8),
    Base(u64, u8, Option<u64>),
    Dirty(u64, u8, bool),
    Xattr(u64, u8, bool),
    Fail,
    Sync,
    Reopen,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let (node, name) = (20_u64..24, 0_u8..6);
    prop_oneof![
        3 => (node.clone(), any::<bool>(), 0_u64..9).prop_map(|(n, c, s)| Op::Put(n, c, s)),
        2 => node.clone().prop_map(Op::Remove),
        6 => (node.clone(), name.clone(), node.clone()).prop_map(|(p, n, c)| Op::Link(p, n, c)),
        3 => (node.clone(), name.clone()).prop_map(|(p, n)| Op::Unlink(p, n)),
        3 => (node.clone(), name.clone(), proptest::option::of(node.clone()))
            .prop_map(|(p, n, c)| Op::Base(p, n, c)),
        3 => (node.clone(), name.clone(), any::<bool>()).prop_map(|(p, n, d)| Op::Dirty(p, n, d)),
        2 => (node, name, any::<bool>()).prop_map(|(n, a, p)| Op::Xattr(n, a, p)),
        1 => Just(Op::Fail),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
    ]
}

#[derive(Default)]
struct Model {
    nodes: BTreeMap<NodeId, (bool, u64)>,
    links: BTreeMap<Place, NodeId>,
    base: BTreeMap<Place, NodeId>,
    dirty: BTreeSet<Place>,
    xattrs: BTreeSet<(NodeId, Vec<u8>)>,
}

fn spot(parent: u64, name: u8) -> Place {
    place(NodeId(parent), &format!("n{name}"))
}

/// Does `op` to the index and the model alike.
fn change(tx: &mut Tx<'_>, model: &mut Model, op: &Op) -> Result<(), ReplicaError> {
    match *op {
        Op::Put(id, data_changed, size) => {
            let id = NodeId(id);
            model.nodes.insert(id, (data_changed, size));
            tx.put_node(crate::replica::Node {
                data_changed,
                size,
                ..file(id)
            })
        }
        Op::Remove(id) => {
            let id = NodeId(id);
            if model.nodes.remove(&id).is_some() {
                model.xattrs.retain(|(node, _)| *node != id);
            }
            tx.remove_node(id)
        }
        Op::Link(parent, name, node) => {
            model.links.insert(spot(parent, name), NodeId(node));
            tx.link(spot(parent, name), NodeId(node))
        }
        Op::Unlink(parent, name) => {
            model.links.remove(&spot(parent, name));
            tx.unlink(&spot(parent, name))
        }
        Op::Base(parent, name, node) => {
            let place = spot(parent, name);
            let entry = node.map(|node| BaseEntry {
                node: NodeId(node),
                version: Version::file(node, 1, 0o600),
            });
            match node {
                Some(node) => model.base.insert(place.clone(), NodeId(node)),
                None => model.base.remove(&place),
            };
            tx.set_base(place, entry)
        }
        Op::Dirty(parent, name, true) => {
            model.dirty.insert(spot(parent, name));
            tx.mark_dirty(spot(parent, name), Time(1))
        }
        Op::Dirty(parent, name, false) => {
            model.dirty.remove(&spot(parent, name));
            tx.clear_dirty(&spot(parent, name))
        }
        Op::Xattr(node, name, there) => {
            let key = (NodeId(node), vec![name]);
            match there {
                true => model.xattrs.insert(key),
                false => model.xattrs.remove(&key),
            };
            tx.set_xattr(NodeId(node), &[name], there.then(|| vec![name; 3]))
        }
        Op::Fail | Op::Sync | Op::Reopen | Op::Kill => Ok(()),
    }
}

/// Compares everything that can be read.
fn compare(view: &View<'_>, model: &Model) -> Result<(), ReplicaError> {
    for id in (20..24).map(NodeId) {
        let node = view.node(id)?.map(|node| (node.data_changed, node.size));
        assert_eq!(node.as_ref(), model.nodes.get(&id));
        let of = |map: &BTreeMap<Place, NodeId>| -> Vec<Place> {
            let places = map.iter().filter(|(_, node)| **node == id);
            places.map(|(place, _)| place.clone()).collect()
        };
        assert_eq!(view.places(id)?, of(&model.links));
        assert_eq!(view.base_places(id)?, of(&model.base));
        let inside = |map: &BTreeMap<Place, NodeId>| -> Vec<(Name, NodeId)> {
            let inside = map.iter().filter(|(place, _)| place.parent == id);
            inside
                .map(|(place, node)| (place.name.clone(), *node))
                .collect()
        };
        let base = view.base_children(id)?.into_iter();
        let base: Vec<_> = base.map(|(name, entry)| (name, entry.node)).collect();
        assert_eq!(base, inside(&model.base));
        // In steps of two, as a directory is listed.
        let mut children = Vec::new();
        loop {
            let after = children
                .last()
                .map(|(name, _): &(Name, NodeId)| name.clone());
            let more = view.children(id, after.as_ref(), 2)?;
            if more.is_empty() {
                break;
            }
            children.extend(more);
        }
        assert_eq!(children, inside(&model.links));
        let names = view.xattrs(id)?.into_iter().map(|(name, _)| (id, name));
        let known = model.xattrs.iter().filter(|(node, _)| *node == id);
        assert!(names.eq(known.cloned()));
    }
    let dirty: Vec<Place> = view
        .dirty(usize::MAX)?
        .into_iter()
        .map(|(p, _)| p)
        .collect();
    assert!(dirty.iter().eq(&model.dirty));
    assert_eq!(
        view.counter(Counter::DirtyPlaces)?,
        model.dirty.len() as u64
    );
    let unsent = model.nodes.values().filter(|(changed, _)| *changed);
    let bytes: u64 = unsent.clone().map(|(_, size)| size).sum();
    assert_eq!(view.counter(Counter::UnsentFiles)?, unsent.count() as u64);
    assert_eq!(view.counter(Counter::UnsentBytes)?, bytes);
    assert_eq!(view.counter(Counter::Files)?, model.nodes.len() as u64);
    Ok(())
}

fn run(ops: &[Vec<Op>]) {
    let mut dir: TempDir = tempfile::tempdir().unwrap();
    let mut replica = open(&dir);
    let mut model = Model::default();
    for batch in ops {
        let fails = batch.iter().any(|op| matches!(op, Op::Fail));
        let mut untouched = Model::default();
        let done = replica.update(|tx| {
            for op in batch {
                change(tx, if fails { &mut untouched } else { &mut model }, op)?;
            }
            match fails {
                true => Err(ReplicaError::Closed {
                    dir: dir.path().to_owned(),
                }),
                false => compare(tx, &model),
            }
        });
        assert_eq!(done.is_err(), fails);
        for op in batch {
            match op {
                Op::Sync => replica.sync().unwrap(),
                Op::Reopen => {
                    drop(replica);
                    replica = open(&dir);
                }
                Op::Kill => {
                    let copy = killed(&replica);
                    replica = open(&copy);
                    dir = copy;
                }
                _ => {}
            }
        }
        view(&replica, |view| compare(view, &model));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_what_plain_maps_would_be(
        ops in proptest::collection::vec(proptest::collection::vec(op(), 1..6), 1..24),
    ) {
        run(&ops);
    }
}
