//! Which account a client's repository belongs to. The array is the record: a repository's owner is its client's account,
//! so that it survives a reflash, and a move of the disks, without any other memory. Pure.
//!
//! The accounts are fixed in number and part of the image (sysusers.d/strongroom-clients.conf).

use std::collections::{BTreeMap, BTreeSet};
use strongroom_model::name::ClientName;
use strongroom_model::status::CLIENTS_MAX;

/// Number of the first account. Files on arrays bear these numbers: they never change.
const FIRST: u32 = 700;

/// One of the accounts of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account(u32);

impl Account {
    /// The account of that user number; `None` when it is nobody's or somebody else's.
    pub fn of_owner(uid: u32) -> Option<Self> {
        let index = uid.checked_sub(FIRST)?;
        ((index as usize) < CLIENTS_MAX).then_some(Self(index))
    }

    /// Number of its user, and of its group.
    pub fn id(self) -> u32 {
        FIRST + self.0
    }

    /// Its name.
    pub fn name(self) -> String {
        format!("strongroom-c{:02}", self.0)
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..CLIENTS_MAX as u32).map(Self)
    }
}

/// Decides which account each client has, from who owns the folders of their repositories now (`None`: there is none yet).
///
/// An account that is a repository's owner already stays; of two clients with the same one, the second in order of names
/// gets another. Clients beyond the number of accounts get none; a configuration has fewer.
pub fn assign(owners: &BTreeMap<ClientName, Option<u32>>) -> BTreeMap<ClientName, Account> {
    let mut assigned = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (client, owner) in owners {
        if let Some(account) = owner.and_then(Account::of_owner)
            && taken.insert(account)
        {
            assigned.insert(client.clone(), account);
        }
    }
    let mut free = Account::all().filter(|account| !taken.contains(account));
    for client in owners.keys() {
        if !assigned.contains_key(client)
            && let Some(account) = free.next()
        {
            assigned.insert(client.clone(), account);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owners(all: &[(&str, Option<u32>)]) -> BTreeMap<ClientName, Option<u32>> {
        all.iter()
            .map(|(name, owner)| (ClientName::new(name).unwrap(), *owner))
            .collect()
    }

    fn numbers(all: &[(&str, Option<u32>)]) -> Vec<u32> {
        assign(&owners(all)).values().map(|account| account.id()).collect()
    }

    #[test]
    fn owners_stay_and_strangers_get_what_is_free() {
        assert_eq!(numbers(&[("a", None), ("b", None)]), [700, 701]);
        // b was here before a came; c is from another machine, d from the account that all clients once shared.
        assert_eq!(
            numbers(&[("a", None), ("b", Some(700)), ("c", Some(1000)), ("d", Some(611))]),
            [701, 700, 702, 703]
        );
        // A copy made with its owner.
        assert_eq!(numbers(&[("a", Some(705)), ("b", Some(705))]), [705, 700]);
    }

    #[test]
    fn no_account_is_anybody_elses() {
        for other in [0, 611, 612, 699, 764, 1000, u32::MAX] {
            assert_eq!(Account::of_owner(other), None);
        }
        assert_eq!(Account::of_owner(763).unwrap().name(), "strongroom-c63");
    }

    #[test]
    fn every_account_is_in_the_image() {
        let text = include_str!("../../../../rootfs-overlay/usr/lib/sysusers.d/strongroom-clients.conf");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected: Vec<String> = Account::all()
            .map(|account| format!("u {} {} \"Sessions of a client\" - -", account.name(), account.id()))
            .collect();
        assert_eq!(lines, expected);
    }

    proptest! {
        #[test]
        fn each_client_has_one_and_it_is_stable(owned in proptest::collection::vec(proptest::option::of(690u32..770), 0..=CLIENTS_MAX)) {
            let owners: BTreeMap<ClientName, Option<u32>> = owned
                .iter()
                .enumerate()
                .map(|(index, owner)| (ClientName::new(&format!("c{index}")).unwrap(), *owner))
                .collect();
            let first = assign(&owners);
            prop_assert_eq!(first.len(), owners.len());
            let distinct: BTreeSet<Account> = first.values().copied().collect();
            prop_assert_eq!(distinct.len(), owners.len());
            let settled = first.iter().map(|(client, account)| (client.clone(), Some(account.id()))).collect();
            prop_assert_eq!(assign(&settled), first);
        }
    }
}
