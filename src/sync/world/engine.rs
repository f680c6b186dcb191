//! The engine of the model: looks, gathers triples, carries out steps, folds outcomes.

use super::*;

/// How one step ends, apart from what the world says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum Luck {
    Good,
    /// Nothing happens.
    Fails,
    /// It happens, and nobody learns of it.
    AnswerLost,
}

impl World {
    /// Lists all directories of the base tree on the server.
    pub(in crate::sync) fn scan(&mut self) {
        self.seen.clear();
        let base_dirs = self
            .base
            .values()
            .filter(|base| base.version.kind == Kind::Dir);
        let mut dirs: Vec<_> = base_dirs.map(|base| base.node).collect();
        dirs.extend([NodeId::ROOT, NodeId::STAGING]);
        for dir in dirs {
            self.list(dir);
        }
    }

    fn list(&mut self, dir: NodeId) {
        let Some(path) = self.server_dir(dir) else {
            return;
        };
        let mut names: BTreeSet<String> = self.server_children(&path).into_iter().collect();
        let known = self.base.keys().filter(|place| place.parent == dir);
        names.extend(known.map(|place| place.name.to_string()));
        for child in names {
            let place = Place::new(dir, name(&child));
            let mut path = path.clone();
            path.push(child);
            let version = self.on_server(&path);
            self.observe(place, version);
        }
    }

    fn observe(&mut self, place: Place, version: Option<Version>) {
        let base = self.base.get(&place).map(|base| &base.version);
        let as_base = match (base, &version) {
            (None, None) => true,
            (Some(base), Some(version)) => base.same(version),
            _ => false,
        };
        if as_base {
            self.seen.remove(&place);
        } else {
            self.seen.insert(place, version);
        }
    }

    fn triple(&self, place: &Place) -> Triple {
        let base = self.base.get(place).cloned();
        let local = self.links.get(place).map(|id| {
            let node = &self.nodes[id];
            LocalEntry {
                node: *id,
                version: node.version.clone(),
                data_changed: node.data_changed,
                whole: node.data.is_some(),
                busy: node.busy,
                holds_scoped: false,
            }
        });
        let remote = match self.seen.get(place) {
            Some(version) => version.clone(),
            None => base.as_ref().map(|base| base.version.clone()),
        };
        Triple {
            base,
            local,
            remote,
        }
    }

    fn is_dirty(&self, place: &Place) -> bool {
        let triple = self.triple(place);
        local_change(triple.base.as_ref(), triple.local.as_ref()) != Change::Same
            || triple
                .base
                .zip(triple.local)
                .is_some_and(|(base, local)| base.node != local.node)
    }

    fn base_places(&self, node: NodeId) -> Vec<Place> {
        let rows = self.base.iter().filter(|(_, base)| base.node == node);
        rows.map(|(place, _)| place.clone()).collect()
    }

    /// The places that differ, closed as `Input` demands and not further.
    pub(in crate::sync) fn input(&self) -> Input {
        let all: BTreeSet<_> = self.base.keys().chain(self.links.keys()).cloned().collect();
        let mut work: Vec<_> = all
            .iter()
            .filter(|place| self.is_dirty(place))
            .cloned()
            .collect();
        work.extend(self.seen.keys().cloned());
        let mut input = Input::default();
        while let Some(place) = work.pop() {
            if input.triples.contains_key(&place) {
                continue;
            }
            let triple = self.triple(&place);
            let nodes = [
                triple.base.as_ref().map(|base| base.node),
                triple.local.as_ref().map(|local| local.node),
            ];
            for node in nodes.into_iter().flatten() {
                work.extend(self.base_places(node));
                work.extend(self.places_of(node));
            }
            let here = triple
                .local
                .as_ref()
                .map(|local| (local.node, local.version.kind));
            let there = triple.remote.as_ref().map(|remote| remote.kind);
            let base = triple
                .base
                .as_ref()
                .filter(|base| base.version.kind == Kind::Dir);
            if let Some(base) = base
                && (here != Some((base.node, Kind::Dir)) || there != Some(Kind::Dir))
            {
                let inside = all.iter().chain(self.seen.keys());
                work.extend(inside.filter(|place| place.parent == base.node).cloned());
            }
            self.add_dirs(&mut input, place.parent);
            nodes
                .into_iter()
                .flatten()
                .for_each(|node| self.add_dirs(&mut input, node));
            input.triples.insert(place, triple);
        }
        input
    }

    fn add_dirs(&self, input: &mut Input, dir: NodeId) {
        if input.dirs.contains_key(&dir) {
            return;
        }
        let base = self.base_places(dir).into_iter().next();
        let local = self.places_of(dir).into_iter().next();
        let is_dir = |kind: Kind| kind == Kind::Dir;
        let in_base = base
            .as_ref()
            .is_some_and(|place| is_dir(self.base[place].version.kind));
        let here = self
            .nodes
            .get(&dir)
            .is_some_and(|node| is_dir(node.version.kind));
        if !in_base && !here && dir != NodeId::ROOT && dir != NodeId::STAGING {
            return;
        }
        let above: Vec<_> = base
            .iter()
            .chain(&local)
            .map(|place| place.parent)
            .collect();
        input.dirs.insert(dir, DirState { base, local });
        above.into_iter().for_each(|dir| self.add_dirs(input, dir));
    }

    /// Fetches what the plan wants to have here.
    pub(in crate::sync) fn hydrate(&mut self, wanted: &Plan) {
        for id in &wanted.needs_content {
            let shown = self.nodes[id].version.clone();
            for place in self.base_places(*id) {
                let base = &self.base[&place].version;
                let path = self.server_path(&place);
                let thing = path.as_ref().and_then(|path| self.server.get(path));
                if let Some(thing) = thing
                    && base.same_content(&thing.version)
                    && base.size == shown.size
                {
                    let data = thing.data;
                    self.nodes.get_mut(id).unwrap().data = Some(data);
                }
            }
            if self.nodes[id].data.is_none() {
                // It is not where it was: a fetch that fails is an observation.
                self.scan();
            }
        }
    }

    pub(in crate::sync) fn run(&mut self, step: &Step, luck: Luck) {
        if luck == Luck::Fails {
            return;
        }
        if let Action::Compare {
            node,
            version,
            otherwise,
        } = &step.action
        {
            let path = self.server_path(&step.place);
            let thing = path.as_ref().and_then(|path| self.server.get(path));
            if thing.is_some_and(|thing| thing.version.same(version))
                && thing.map(|thing| thing.data) != self.nodes[node].data
            {
                return self.run(otherwise, luck);
            }
        }
        let outcome = self.act(step);
        if luck == Luck::AnswerLost && matches!(step.action, Action::Move { .. }) {
            self.list(NodeId::STAGING);
        }
        if luck == Luck::Good || !step.action.is_on_server() {
            for fold in settle(step, &outcome) {
                self.fold(fold);
            }
            self.assert_base_is_a_tree();
        }
    }

    fn act(&mut self, step: &Step) -> Outcome {
        if !step.action.is_on_server() {
            return self.act_here(step);
        }
        let Some(path) = self.server_path(&step.place) else {
            return Outcome::Failed;
        };
        if !self.server_is_dir(&path[..path.len() - 1]) {
            // Whoever finds a directory gone looks where it went.
            self.scan();
            return Outcome::Failed;
        }
        let found = self.on_server(&path);
        let expected = match &step.action {
            Action::Publish { replaces, .. } | Action::Move { replaces, .. } => replaces.as_ref(),
            Action::SetAttr { expected, .. } | Action::Remove { expected, .. } => Some(expected),
            Action::RemoveDir => return self.remove_dir(step, &path, found),
            _ => None,
        };
        let as_expected = match (expected, &found) {
            (None, None) => true,
            (Some(expected), Some(found)) => expected.same(found),
            _ => false,
        };
        match &step.action {
            Action::Move { .. } => self.act_move(step, &path, found, as_expected),
            _ if !as_expected => Outcome::Saw(found),
            Action::MakeDir { node } => {
                let version = self.nodes[node].version.clone();
                let made = version.clone();
                self.server.insert(path, Thing { version, data: 0 });
                done(Some(made))
            }
            Action::Publish { node, keep, .. } => self.act_publish(*node, path, *keep),
            Action::SetAttr { node, .. } => {
                let shown = &self.nodes[node].version;
                let thing = self.server.get_mut(&path).unwrap();
                thing.version.mode = shown.mode;
                thing.version.mtime = shown.mtime;
                let version = thing.version.clone();
                let hash = shown.hash;
                done(Some(Version { hash, ..version }))
            }
            Action::Remove { keep, .. } => {
                self.put_aside(&path, *keep);
                done(None)
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn act_move(
        &mut self,
        step: &Step,
        path: &Path,
        found: Option<Version>,
        as_expected: bool,
    ) -> Outcome {
        let Action::Move {
            node,
            from,
            expected,
            ..
        } = &step.action
        else {
            unreachable!("{step:?}");
        };
        let Some(source) = self.server_path(from) else {
            return Outcome::Failed;
        };
        let in_base = self.base.get(from).is_some_and(|base| base.node == *node);
        if !in_base || path.starts_with(&source) {
            return Outcome::Failed;
        }
        let there = self.on_server(&source);
        if !there.as_ref().is_some_and(|there| there.same(expected)) {
            self.list(NodeId::STAGING);
            return Outcome::Saw(there);
        }
        if !as_expected {
            return Outcome::SawTarget(found);
        }
        self.server.remove(path);
        self.rename_on_server(&source, path);
        done(None)
    }

    fn act_publish(&mut self, node: NodeId, path: Path, keep: Keep) -> Outcome {
        self.put_aside(&path, keep);
        let node = self.nodes.get_mut(&node).unwrap();
        let is_file = node.version.kind == Kind::File;
        assert!(node.data.is_some() || !is_file, "nothing to send: {path:?}");
        let data = node.data.unwrap_or(0);
        let version = Version {
            hash: None,
            ..node.version.clone()
        };
        let sent = version.clone();
        self.server.insert(
            path,
            Thing {
                version: sent,
                data,
            },
        );
        let hash = is_file.then(|| hash_of(data));
        node.version.hash = hash;
        done(Some(Version { hash, ..version }))
    }

    fn remove_dir(&mut self, step: &Step, path: &Path, found: Option<Version>) -> Outcome {
        let is_dir = found.as_ref().is_some_and(|found| found.kind == Kind::Dir);
        if is_dir && self.server_children(path).is_empty() {
            self.server.remove(path);
            return done(None);
        }
        let base = self.base.get(&step.place).map(|base| base.node);
        if let Some(dir) = base.filter(|_| is_dir) {
            self.list(dir);
        }
        Outcome::Saw(found)
    }

    /// What stands on the server at `path` makes room.
    fn put_aside(&mut self, path: &Path, keep: Keep) {
        if let Some(thing) = self.server.remove(path) {
            assert_ne!(thing.version.kind, Kind::Dir);
            if keep != Keep::Replaced && thing.version.kind == Kind::File {
                self.kept.insert(thing.data);
            }
        }
    }

    fn act_here(&mut self, step: &Step) -> Outcome {
        let place = &step.place;
        let removes = matches!(step.action, Action::Drop { .. } | Action::DropDir { .. });
        let ends = match &step.action {
            Action::Split { from, .. } => [from, from],
            Action::Moved { from, .. } => [from, place],
            _ => [place, place],
        };
        if !removes
            && ends
                .iter()
                .any(|place| self.server_dir(place.parent).is_none())
        {
            return Outcome::Failed;
        }
        match &step.action {
            Action::Split { .. } => Outcome::Done {
                version: None,
                node: Some(self.alloc()),
            },
            Action::Adopt { version, revive } => self.act_adopt(place, version, *revive),
            Action::Refresh {
                node,
                version,
                keep,
            } => self.act_refresh(*node, version, *keep),
            Action::TakeAttrs { node, version } => {
                let node = self.nodes.get_mut(node).unwrap();
                assert!(!node.busy, "{step:?}");
                node.version.mode = version.mode;
                node.version.mtime = version.mtime;
                done(None)
            }
            Action::Drop { node, keep } => {
                assert_eq!(self.links.remove(place), Some(*node));
                assert!(!self.nodes[node].busy);
                if *keep != Keep::Replaced {
                    self.kept.extend(self.nodes[node].data);
                }
                if self.places_of(*node).is_empty() {
                    self.nodes.remove(node);
                }
                done(None)
            }
            Action::DropDir { node } => {
                if self.links.keys().any(|place| place.parent == *node) {
                    return Outcome::Failed;
                }
                self.links.remove(place);
                self.nodes.remove(node);
                done(None)
            }
            Action::Compare { version, .. } => {
                let path = self.server_path(place);
                let found = path.and_then(|path| self.on_server(&path));
                if found.as_ref().is_some_and(|found| found.same(version)) {
                    done(None)
                } else {
                    Outcome::Saw(found)
                }
            }
            _ => done(None),
        }
    }

    fn act_refresh(&mut self, node: NodeId, version: &Version, keep: Keep) -> Outcome {
        let origin = self.data_of(version);
        let node = self.nodes.get_mut(&node).unwrap();
        assert!(!node.busy && version.kind != Kind::Dir, "{version:?}");
        if keep != Keep::Replaced {
            self.kept.extend(node.data);
        }
        *node = Node {
            version: version.clone(),
            origin,
            data: None,
            data_changed: false,
            busy: false,
        };
        done(None)
    }

    fn act_adopt(&mut self, place: &Place, version: &Version, revive: Option<NodeId>) -> Outcome {
        assert!(!self.links.contains_key(place), "{place:?} is taken");
        assert!(place.parent == NodeId::ROOT || !self.places_of(place.parent).is_empty());
        let new = Node {
            version: version.clone(),
            origin: self.data_of(version),
            data: None,
            data_changed: false,
            busy: false,
        };
        let node = revive.unwrap_or_else(|| self.alloc());
        assert!(self.nodes.insert(node, new).is_none());
        self.links.insert(place.clone(), node);
        let node = Some(node);
        Outcome::Done {
            version: None,
            node,
        }
    }

    /// What a file of this version holds, wherever it is on the server by now.
    fn data_of(&self, version: &Version) -> Option<Data> {
        let mut files = self.server.values();
        let same = files.find(|thing| thing.version.same_content(version))?;
        Some(same.data)
    }

    fn forget_inside(&mut self, dir: NodeId) {
        let rows = self.base.extract_if(.., |place, _| place.parent == dir);
        let rows: Vec<_> = rows.collect();
        self.seen.retain(|place, _| place.parent != dir);
        rows.into_iter()
            .for_each(|(_, base)| self.forget_inside(base.node));
    }

    fn forget_seen(&mut self, dir: NodeId) {
        self.seen.retain(|place, _| place.parent != dir);
        let rows = self.base.iter().filter(|(place, _)| place.parent == dir);
        let inside: Vec<_> = rows.map(|(_, base)| base.node).collect();
        inside.into_iter().for_each(|dir| self.forget_seen(dir));
    }

    fn set_base(&mut self, place: Place, entry: Option<BaseEntry>) {
        let new = entry.as_ref().map(|entry| entry.node);
        let old = match entry {
            Some(entry) => self.base.insert(place, entry),
            None => self.base.remove(&place),
        };
        if let Some(old) = old
            && old.version.kind == Kind::Dir
            && new != Some(old.node)
        {
            self.forget_inside(old.node);
        }
    }

    fn fold(&mut self, fold: Fold) {
        match fold {
            Fold::SetBase { place, entry } => self.set_base(place, entry),
            Fold::Disown {
                node,
                place,
                version,
            } => {
                self.nodes.get_mut(&node).unwrap().data_changed = false;
                for (other, base) in &mut self.base {
                    let same = surely_same_data(&base.version, &version);
                    if base.node == node && *other != place && !same {
                        base.node = NodeId::NONE;
                    }
                }
            }
            Fold::MoveBase { from, to } => {
                let base = self.base.remove(&from).unwrap();
                self.set_base(to.clone(), Some(base));
                self.seen.remove(&to);
                if let Some(seen) = self.seen.remove(&from) {
                    self.observe(to, seen);
                }
            }
            Fold::ForgetInside { dir } => self.forget_seen(dir),
            Fold::Rekey { place, from, to } => {
                self.base.get_mut(&place).unwrap().node = to;
                let inside = |place: &Place| place.parent == from;
                let key = |place: Place| Place::new(to, place.name);
                let rows: Vec<_> = self.base.extract_if(.., |place, _| inside(place)).collect();
                self.base
                    .extend(rows.into_iter().map(|(place, row)| (key(place), row)));
                let seen: Vec<_> = self.seen.extract_if(.., |place, _| inside(place)).collect();
                self.seen
                    .extend(seen.into_iter().map(|(place, row)| (key(place), row)));
            }
            Fold::Observe { place, version } => self.observe(place, version),
            Fold::Forget { place } => {
                self.seen.remove(&place);
            }
            Fold::Clean { .. } => {}
        }
    }

    /// Carries out plans until there is nothing left to do; `rounds` at most.
    pub(in crate::sync) fn settle_down(&mut self, rounds: usize, policy: &Policy) {
        self.scan();
        for _ in 0..rounds {
            let next = plan(&self.input(), policy);
            assert!(next.obstructed.is_empty());
            self.hydrate(&next);
            if next.is_empty() && next.needs_content.is_empty() {
                for node in self.nodes.values_mut() {
                    node.busy = false;
                }
                self.scan();
                let again = plan(&self.input(), policy);
                if again.is_empty() && again.needs_content.is_empty() {
                    assert!(again.waiting.is_empty());
                    return;
                }
                continue;
            }
            for step in next.steps() {
                self.run(step, Luck::Good);
            }
        }
        panic!("no end: {:#?} of {self:#?}", plan(&self.input(), policy));
    }
}

fn done(version: Option<Version>) -> Outcome {
    Outcome::Done {
        version,
        node: None,
    }
}
