//! Lists that there are and lists that there are not, and what a mode does to them.

use proptest::prelude::*;

use super::*;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

type Raw = (u16, u16, u32);

fn bytes(version: u32, entries: &[Raw]) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn parse(entries: &[Raw]) -> Result<Option<Acl>, AclError> {
    Acl::parse(&bytes(2, entries))
}

/// `u::6,u:1000:7,g::5,g:50:6,m::4,o::1`
const FULL: [Raw; 6] = [
    (OWNER, 6, NO_ID),
    (USER, 7, 1000),
    (GROUP, 5, NO_ID),
    (NAMED_GROUP, 6, 50),
    (MASK, 4, NO_ID),
    (OTHER, 1, NO_ID),
];

const MINIMAL: [Raw; 3] = [(OWNER, 6, NO_ID), (GROUP, 4, NO_ID), (OTHER, 0, NO_ID)];

#[test]
fn what_the_kernel_takes_is_a_list_and_nothing_else() {
    let without = |left_out: usize| {
        let mut entries = FULL.to_vec();
        entries.remove(left_out);
        entries
    };
    let with = |index: usize, entry: Raw| {
        let mut entries = FULL.to_vec();
        entries.insert(index, entry);
        entries
    };
    let many = |number: usize| {
        let mut entries = MINIMAL.to_vec();
        entries.insert(2, (MASK, 7, NO_ID));
        for id in 0..number {
            entries.insert(1, (USER, 4, id as u32));
        }
        entries
    };
    let cases: [(&str, Vec<Raw>, Result<(), AclError>); 19] = [
        ("all kinds", FULL.to_vec(), Ok(())),
        ("the least", MINIMAL.to_vec(), Ok(())),
        ("nobody named, no mask, no harm", many(0), Ok(())),
        ("a user", without(3), Ok(())),
        ("a group", without(1), Ok(())),
        ("two users", with(1, (USER, 1, 2000)), Ok(())),
        ("as long as may be", many(507), Ok(())),
        ("one more", many(508), Err(AclError::TooLong)),
        ("no owner", without(0), Err(AclError::Order)),
        ("no group", without(2), Err(AclError::Order)),
        ("no mask", without(4), Err(AclError::Order)),
        ("no others", without(5), Err(AclError::Order)),
        ("two owners", with(0, FULL[0]), Err(AclError::Order)),
        ("two masks", with(4, FULL[4]), Err(AclError::Order)),
        ("out of order", with(6, (USER, 1, 1)), Err(AclError::Order)),
        ("no such tag", with(1, (0x03, 1, 1)), Err(AclError::Entry)),
        ("a tag of 0", with(1, (0, 1, 1)), Err(AclError::Entry)),
        ("too much", with(1, (USER, 8, 1)), Err(AclError::Entry)),
        ("nobody", with(1, (USER, 7, NO_ID)), Err(AclError::Entry)),
    ];
    for (name, entries, expected) in cases {
        let parsed = parse(&entries);
        assert_eq!(
            parsed.as_ref().map(drop),
            expected.as_ref().copied(),
            "{name}"
        );
        if let Ok(list) = parsed {
            assert_eq!(list.unwrap().to_bytes(), bytes(2, &entries), "{name}");
        }
    }
}

#[test]
fn what_is_no_list_at_all_is_told_from_one_without_entries() {
    assert_eq!(parse(&[]), Ok(None));
    for no_list in [
        Vec::new(),
        vec![2, 0, 0],
        bytes(1, &FULL),
        bytes(3, &MINIMAL),
        bytes(2, &FULL)[..11].to_vec(),
        [bytes(2, &FULL), vec![0]].concat(),
    ] {
        assert_eq!(Acl::parse(&no_list), Err(AclError::Form), "{no_list:?}");
    }
}

#[test]
fn whom_an_entry_names_that_names_nobody_does_not_matter() {
    let mut odd = MINIMAL;
    odd[1].2 = 7;
    let list = parse(&odd).unwrap().unwrap();
    assert_eq!(list.to_bytes(), bytes(2, &MINIMAL));
}

#[test]
fn the_mask_or_the_group_is_what_the_mode_says_of_the_group() {
    let list = parse(&FULL).unwrap().unwrap();
    assert_eq!(list.mode(), 0o641);
    assert!(!list.is_all_in_mode());
    let mut changed = FULL;
    (changed[0].1, changed[4].1, changed[5].1) = (7, 3, 5);
    assert_eq!(list.with_mode(0o100_4735).to_bytes(), bytes(2, &changed));

    let minimal = parse(&MINIMAL).unwrap().unwrap();
    assert_eq!(minimal.mode(), 0o640);
    assert!(minimal.is_all_in_mode());
    let changed = [(OWNER, 1, NO_ID), (GROUP, 2, NO_ID), (OTHER, 3, NO_ID)];
    assert_eq!(minimal.with_mode(0o123).to_bytes(), bytes(2, &changed));
}

proptest! {
    #[test]
    fn any_bytes_are_a_list_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(Some(list)) = Acl::parse(&bytes) {
            prop_assert_eq!(Acl::parse(&list.to_bytes()), Ok(Some(list)));
        }
    }

    #[test]
    fn a_list_says_the_mode_that_it_was_given(
        mode in 0..0o1000_u32,
        named in prop::collection::vec((0..8_u16, 0..5_u32), 0..5),
    ) {
        let mut entries = MINIMAL.to_vec();
        entries.insert(2, (MASK, 0, NO_ID));
        for (permissions, id) in named {
            entries.insert(1, (USER, permissions, id));
        }
        let list = parse(&entries).unwrap().unwrap().with_mode(mode);
        prop_assert_eq!(list.mode(), mode);
    }
}
