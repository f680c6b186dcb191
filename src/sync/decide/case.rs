//! One place, and what each meeting of kinds there comes to.

use crate::tree::{BaseEntry, Kind, NodeId, Place, Version};

use super::super::change::{Change, local_change, may_hold_same_data, remote_change};
use super::super::{Action, Keep, LocalEntry, Policy, Prefer, Step, Triple, Why};
use super::Decision::{self, Act, Settled};
use super::{Context, Fate, is_dir, newest};

/// One place with all that decides about it.
pub(super) struct Case<'a> {
    place: &'a Place,
    base: Option<&'a BaseEntry>,
    here: Change,
    there: Change,
    context: &'a Context,
    policy: &'a Policy,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        place: &'a Place,
        triple: &'a Triple,
        context: &'a Context,
        policy: &'a Policy,
    ) -> Self {
        Self {
            place,
            base: triple.base.as_ref(),
            here: local_change(triple.base.as_ref(), triple.local.as_ref()),
            there: remote_change(triple.base.as_ref(), triple.remote.as_ref()),
            context,
            policy,
        }
    }

    /// The base tree's directory here, if any.
    fn base_dir(&self) -> Option<NodeId> {
        self.base
            .filter(|base| is_dir(&base.version))
            .map(|base| base.node)
    }

    /// `act` once nothing is left of the directory that makes room, `stay` if something stays in it.
    fn once_empty(&self, act: Decision, stay: Decision) -> Decision {
        match self.context.inside {
            Fate::Gone => act,
            Fate::Undecided => Decision::Later,
            Fate::Stays => stay,
        }
    }

    /// Takes the server's file away, unless it is the last copy of something.
    fn remove(&self, remote: &Version, keep: Keep, why: Why) -> Decision {
        match self.base {
            Some(base) if self.context.lent => Decision::NeedsContent(base.node),
            _ => Act(
                Action::Remove {
                    expected: remote.clone(),
                    keep,
                },
                why,
            ),
        }
    }

    /// Nothing here, something there.
    pub(super) fn gone_here(&self, remote: &Version) -> Decision {
        let adopt = |revive, why| {
            Act(
                Action::Adopt {
                    version: remote.clone(),
                    revive,
                },
                why,
            )
        };
        match (self.base_dir(), self.there) {
            (_, Change::Created) => adopt(None, Why::RemoteChange),
            (Some(node), _) if is_dir(remote) => self.once_empty(
                Act(Action::RemoveDir, Why::LocalChange),
                adopt(Some(node), Why::ChangeBeatsRemoval),
            ),
            (_, Change::Same) => self.remove(remote, Keep::Trash, Why::LocalChange),
            _ => adopt(None, Why::ChangeBeatsRemoval),
        }
    }

    pub(super) fn directory_gone_there(&self, local: &LocalEntry) -> Decision {
        let make = |why| Act(Action::MakeDir { node: local.node }, why);
        if self.base_dir() != Some(local.node) {
            make(Why::LocalChange)
        } else if local.holds_scoped {
            make(Why::ChangeBeatsRemoval)
        } else {
            self.once_empty(
                Act(Action::DropDir { node: local.node }, Why::RemoteChange),
                make(Why::ChangeBeatsRemoval),
            )
        }
    }

    pub(super) fn leaf_gone_there(&self, local: &LocalEntry) -> Decision {
        let unchanged_here = self.here == Change::Same;
        if local.busy && self.there != Change::Same {
            Decision::Busy
        } else if unchanged_here {
            self.drop(local, Keep::Trash, Why::RemoteChange)
        } else if let Some(decision) = self.without_content(local, None) {
            decision
        } else {
            let why = match self.there {
                Change::Same => Why::LocalChange,
                _ => Why::ChangeBeatsRemoval,
            };
            Act(
                Action::Publish {
                    node: local.node,
                    replaces: None,
                    keep: Keep::Replaced,
                },
                why,
            )
        }
    }

    fn drop(&self, local: &LocalEntry, keep: Keep, why: Why) -> Decision {
        Act(
            Action::Drop {
                node: local.node,
                keep,
            },
            why,
        )
    }

    pub(super) fn directories(&self, local: &LocalEntry, remote: &Version) -> Decision {
        if let Some(from) = self.base_dir().filter(|from| *from != local.node) {
            let node = local.node;
            return Act(Action::Unite { from, node }, Why::BothAgree);
        }
        self.attributes(local, remote, self.policy.prefer)
    }

    pub(super) fn directory_here(&self, local: &LocalEntry, remote: &Version) -> Decision {
        let make_room = self.remove(remote, Keep::Backup, Why::DirectoryStays);
        if self.base_dir() == Some(local.node) {
            if local.holds_scoped {
                return make_room;
            }
            let drop = Act(Action::DropDir { node: local.node }, Why::RemoteChange);
            return self.once_empty(drop, make_room);
        }
        if self.there == Change::Same {
            return self.remove(remote, Keep::Trash, Why::LocalChange);
        }
        make_room
    }

    pub(super) fn directory_there(&self, local: &LocalEntry, remote: &Version) -> Decision {
        let untouched = matches!(self.here, Change::Same | Change::Attributes);
        let make_room = if local.busy {
            Decision::Busy
        } else if untouched {
            self.drop(local, Keep::Trash, Why::RemoteChange)
        } else {
            self.without_content(local, Some(remote))
                .unwrap_or_else(|| self.drop(local, Keep::Backup, Why::DirectoryStays))
        };
        if self.base_dir().is_none() {
            return make_room;
        }
        self.once_empty(Act(Action::RemoveDir, Why::LocalChange), make_room)
    }

    /// What to do with a file whose new state here would have to go to the server, or to a backup, but whose
    /// content is not here. `None` if it is here.
    fn without_content(&self, local: &LocalEntry, remote: Option<&Version>) -> Option<Decision> {
        if local.version.kind != Kind::File || local.whole {
            return None;
        }
        if self.context.fetchable {
            return Some(Decision::NeedsContent(local.node));
        }
        if local.busy {
            return Some(Decision::Busy);
        }
        // All that is here is what was written into a file of which the rest is lost.
        let keep = |clean| {
            if local.data_changed {
                Keep::Backup
            } else {
                clean
            }
        };
        Some(match remote {
            Some(remote) if !is_dir(remote) => {
                self.refresh(local, remote, keep(Keep::Replaced), Why::RemoteChange)
            }
            _ => self.drop(local, keep(Keep::Trash), Why::RemoteChange),
        })
    }

    fn refresh(&self, local: &LocalEntry, remote: &Version, keep: Keep, why: Why) -> Decision {
        Act(
            Action::Refresh {
                node: local.node,
                version: remote.clone(),
                keep,
            },
            why,
        )
    }

    fn publish(&self, local: &LocalEntry, remote: &Version, keep: Keep, why: Why) -> Decision {
        match self.base {
            Some(base) if self.context.lent => Decision::NeedsContent(base.node),
            _ => Act(
                Action::Publish {
                    node: local.node,
                    replaces: Some(remote.clone()),
                    keep,
                },
                why,
            ),
        }
    }

    /// Files and symlinks on both sides.
    pub(super) fn leaves(&self, local: &LocalEntry, remote: &Version) -> Decision {
        if local.busy && self.there != Change::Same {
            return Decision::Busy;
        }
        let content_here = self.here.brings_content();
        let content_there = self.there.brings_content();
        match (content_here, content_there) {
            (false, false) => self.attributes(local, remote, self.policy.prefer),
            (false, true) => self.refresh(local, remote, Keep::Replaced, Why::RemoteChange),
            (true, _) if same_symlink(&local.version, remote) => self.agree(local, remote),
            (true, false) => self
                .without_content(local, Some(remote))
                .unwrap_or_else(|| {
                    self.publish(local, remote, self.keep_replaced(local), Why::LocalChange)
                }),
            (true, true) => self
                .without_content(local, Some(remote))
                .unwrap_or_else(|| self.conflict(local, remote)),
        }
    }

    /// What its user replaced may be forgotten. A hard link's content came through another place, so that
    /// nobody ever saw what this place's user is about to lose.
    fn keep_replaced(&self, local: &LocalEntry) -> Keep {
        let replaced_by_user =
            local.data_changed || self.base.is_none_or(|base| base.node != local.node);
        let disowned = self.base.is_some_and(|base| base.node == NodeId::NONE);
        if replaced_by_user && !disowned && !self.context.shared {
            Keep::Replaced
        } else {
            Keep::Backup
        }
    }

    /// Both sides have the same content, or a directory; at most mode and mtime differ.
    fn attributes(&self, local: &LocalEntry, remote: &Version, prefer: Prefer) -> Decision {
        if self.here == Change::Same && self.there == Change::Same {
            return Settled;
        }
        if local.version.mode == remote.mode && local.version.mtime == remote.mtime {
            return self.agree(local, remote);
        }
        let (winner, why) = match (self.here, self.there) {
            (_, Change::Same) => (Prefer::Local, Why::LocalChange),
            (Change::Same, _) => (Prefer::Remote, Why::RemoteChange),
            (_, _) if prefer == Prefer::Local => (Prefer::Local, Why::ConflictLocalWins),
            (_, _) => (Prefer::Remote, Why::ConflictRemoteWins),
        };
        let node = local.node;
        match winner {
            Prefer::Local => Act(
                Action::SetAttr {
                    node,
                    expected: remote.clone(),
                },
                why,
            ),
            Prefer::Remote => Act(
                Action::TakeAttrs {
                    node,
                    version: remote.clone(),
                },
                why,
            ),
        }
    }

    fn agree(&self, local: &LocalEntry, remote: &Version) -> Decision {
        let entry = BaseEntry {
            node: local.node,
            version: Version {
                hash: remote.hash.or(local.version.hash),
                ..remote.clone()
            },
        };
        Act(Action::Agree { entry: Some(entry) }, Why::BothAgree)
    }

    /// Both sides brought content.
    fn conflict(&self, local: &LocalEntry, remote: &Version) -> Decision {
        let prefer = newest(&local.version, remote, self.policy);
        let files = local.version.kind == Kind::File && remote.kind == Kind::File;
        let may_be_equal = files && may_hold_same_data(&local.version, remote);
        let both_known = local.version.hash.is_some() && remote.hash.is_some();
        if may_be_equal && (both_known || remote.size == 0) {
            return self.attributes(local, remote, prefer);
        }
        let resolved = match prefer {
            Prefer::Local => self.publish(local, remote, Keep::Backup, Why::ConflictLocalWins),
            Prefer::Remote => self.refresh(local, remote, Keep::Backup, Why::ConflictRemoteWins),
        };
        match resolved {
            Act(action, why) if may_be_equal => self.compare(local, remote, action, why),
            resolved => resolved,
        }
    }

    fn compare(&self, local: &LocalEntry, remote: &Version, action: Action, why: Why) -> Decision {
        let otherwise = Step {
            place: self.place.clone(),
            action,
            why,
        };
        let compare = Action::Compare {
            node: local.node,
            version: remote.clone(),
            otherwise: Box::new(otherwise),
        };
        Act(compare, why)
    }
}

fn same_symlink(local: &Version, remote: &Version) -> bool {
    local.kind == Kind::Symlink && remote.kind == Kind::Symlink && local.target == remote.target
}
