//! Whatever happened to a target before: what is retired leaves every manifest that is there whole, after each step.

use proptest::prelude::*;

use super::*;
use crate::digest::{Digest, Sha256Sum};
use crate::layout::Name;
use crate::ledger::{Record, What};

const CONFIG: Sha256Sum = Digest([7; 32]);

fn item(object: &str) -> Item {
    Item {
        object: object.into(),
        size: 10,
        etag: "e".into(),
        md5: None,
        sha256: None,
        parts: None,
        plain_size: 1,
        plain_sha256: None,
        modified: 0,
    }
}

/// What happens to a target.
#[derive(Debug, Clone)]
enum Event {
    /// Days pass.
    Days(u16),
    /// A backup adds segments, a compaction takes away others (by their place), and a push sees both.
    Push { new: u8, freed: Vec<u8>, ends: Ends },
    /// A segment that was taken away is there again.
    Back(u8),
    /// A segment is gone though nothing was committed.
    Lose(u8),
    /// The state partition is made anew.
    LoseLedger,
    /// A retirement that is cut short after so many objects, with other settings for its days.
    Retire { keep_days: u16, steps: u8 },
}

/// How far a push comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    /// To its end.
    Well,
    /// The manifest is there, and the ledger does not know it yet.
    Late,
    /// The manifest is there, but nobody can see it.
    Lost,
    /// The manifest is not there.
    Early,
    /// The objects arrived, but nobody could see it: they are sent again under other names.
    Unseen,
}

fn event() -> impl Strategy<Value = Event> {
    let ends = prop_oneof![
        4 => Just(Ends::Well),
        1 => Just(Ends::Late),
        1 => Just(Ends::Lost),
        1 => Just(Ends::Early),
        1 => Just(Ends::Unseen),
    ];
    let push = (1..4_u8, proptest::collection::vec(any::<u8>(), 0..4), ends);
    prop_oneof![
        4 => (1..60_u16).prop_map(Event::Days),
        8 => push.prop_map(|(new, freed, ends)| Event::Push { new, freed, ends }),
        1 => any::<u8>().prop_map(Event::Back),
        1 => any::<u8>().prop_map(Event::Lose),
        1 => Just(Event::LoseLedger),
        6 => (prop_oneof![Just(30_u16), Just(90)], any::<u8>()).prop_map(|(keep_days, steps)| Event::Retire { keep_days, steps }),
    ]
}

#[derive(Default)]
struct World {
    now: u64,
    /// Objects, and when they were written.
    bucket: BTreeMap<String, u64>,
    /// What each manifest that was ever published names.
    names: BTreeMap<String, BTreeSet<String>>,
    state: State,
    local: BTreeSet<u32>,
    freed: Vec<u32>,
    last: u32,
    revision: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now: 1_000_000_000,
            ..Self::default()
        }
    }

    fn put(&mut self, object: &str) {
        self.now += 1;
        assert!(
            self.bucket.insert(object.into(), self.now).is_none(),
            "{object} is overwritten"
        );
    }

    /// A name that is free, as a push finds one.
    fn name(&mut self, name: &Name) -> String {
        let first = name.revision(None);
        if self.bucket.contains_key(&first) || self.state.taken.contains(&first) {
            self.revision += 1;
            return name.revision(Some(self.revision));
        }
        first
    }

    fn push(&mut self, new: u8, freed: &[u8], ends: Ends) {
        for at in freed {
            if let Some(number) = self
                .local
                .iter()
                .copied()
                .nth(usize::from(*at) % (self.local.len() + 1))
            {
                self.local.remove(&number);
                self.freed.push(number);
            }
        }
        for _ in 0..new {
            self.last += 1;
            self.local.insert(self.last);
        }
        self.settle();
        if !self.state.ready {
            self.rebuild();
        }
        for number in self.local.clone() {
            let number = SegmentNumber(number);
            let known = self.state.segments.get(&number).cloned();
            match known {
                Some(known) if self.state.released.contains_key(&number) => {
                    self.state.apply(Record::Stored {
                        what: What::Segment(number),
                        item: known,
                    });
                }
                Some(_) => {}
                None => {
                    let name = Name::segment(&format!("data/0/{number}"));
                    let mut object = self.name(&name);
                    if ends == Ends::Unseen {
                        self.put(&object);
                        self.state.apply(Record::Taken { object });
                        object = self.name(&name);
                    }
                    self.put(&object);
                    self.state.apply(Record::Stored {
                        what: What::Segment(number),
                        item: item(&object),
                    });
                }
            }
        }
        if !self.state.configs.contains_key(&CONFIG) {
            let object = Name::config(&CONFIG).revision(None);
            self.bucket.entry(object.clone()).or_insert(self.now);
            self.state.apply(Record::Stored {
                what: What::Config(CONFIG),
                item: item(&object),
            });
        }
        let transaction = SegmentNumber(self.last);
        let mut manifest = self.name(&Name::manifest(transaction));
        let mut sums = sums_of_manifest(&manifest).unwrap();
        if self.bucket.contains_key(&sums) {
            self.revision += 1;
            manifest = Name::manifest(transaction).revision(Some(self.revision));
            sums = sums_of_manifest(&manifest).unwrap();
        }
        self.put(&sums);
        self.put(&signature_of_sums(&sums));
        self.state.taken.extend([sums.clone(), signature_of_sums(&sums)]);
        if ends == Ends::Early {
            self.state.taken.insert(manifest);
            return;
        }
        self.put(&manifest);
        let objects = self
            .local
            .iter()
            .map(|number| self.state.segments[&SegmentNumber(*number)].object.clone());
        let objects: BTreeSet<String> = objects.chain([Name::config(&CONFIG).revision(None)]).collect();
        self.names.insert(manifest.clone(), objects);
        let numbers = self.state.segments.keys().copied();
        let segments = numbers
            .filter(|n| !self.local.contains(&n.0) && !self.state.released.contains_key(n))
            .collect();
        self.state.apply(Record::Without {
            manifest: manifest.clone(),
            segments,
        });
        let what = What::Manifest(transaction, CONFIG);
        self.state.apply(Record::Intent {
            what,
            item: item(&manifest),
        });
        match ends {
            Ends::Late => {}
            Ends::Lost => self.state.apply(Record::Taken { object: manifest }),
            _ => self.settle(),
        }
    }

    /// As the next push does it first.
    fn settle(&mut self) {
        for (object, (what, item)) in self.state.intents.clone() {
            self.state.apply(if self.bucket.contains_key(&object) {
                Record::Stored { what, item }
            } else {
                Record::Dropped { object }
            });
        }
    }

    /// As a ledger is made anew: what the newest manifest names of what is here, what has the name of a segment that is
    /// here, and the manifest if it is of the present state.
    fn rebuild(&mut self) {
        self.state = State::default();
        self.state.apply(Record::Ready);
        let there = self.names.keys().filter(|manifest| self.bucket.contains_key(*manifest));
        let newest = there.max_by_key(|manifest| parse_manifest(manifest)).cloned();
        let named = newest
            .as_ref()
            .map(|newest| self.names[newest].clone())
            .unwrap_or_default();
        for number in self.local.clone() {
            let number = SegmentNumber(number);
            let named = named
                .iter()
                .find(|object| object_of_segment(object) == Some(number))
                .cloned();
            let object = named.unwrap_or_else(|| Name::segment(&format!("data/0/{number}")).revision(None));
            if self.bucket.contains_key(&object) {
                self.state.apply(Record::Stored {
                    what: What::Segment(number),
                    item: item(&object),
                });
            }
        }
        let transaction = SegmentNumber(self.last);
        let of_now = |manifest: &String| parse_manifest(manifest).is_some_and(|(of, _)| of == transaction);
        let Some(manifest) = newest.filter(of_now) else {
            return;
        };
        let first = Name::manifest(transaction).revision(None);
        self.state.apply(Record::Taken { object: first });
        let known = &self.state.segments;
        if self
            .local
            .iter()
            .all(|number| known.contains_key(&SegmentNumber(*number)))
        {
            self.state.apply(Record::Stored {
                what: What::Config(CONFIG),
                item: item(&Name::config(&CONFIG).revision(None)),
            });
            self.state.apply(Record::Stored {
                what: What::Manifest(transaction, CONFIG),
                item: item(&manifest),
            });
        }
    }

    fn listed(&self) -> Vec<Listed> {
        let listed = self.bucket.iter().map(|(key, modified)| Listed {
            key: key.clone(),
            size: 10,
            etag: "e".into(),
            modified: Some(*modified),
        });
        listed.collect()
    }

    /// Manifests, sums and segments that may go.
    fn planned(&self, rules: &Rules, now: u64) -> Result<([Vec<String>; 3], Tally), String> {
        let listed = self.listed();
        let there = listed.iter().map(|listed| (listed.key.as_str(), listed)).collect();
        let plan = plan(&there, &self.state, &BTreeSet::new(), rules, now)?;
        let owned = |objects: Vec<&str>| objects.into_iter().map(str::to_owned).collect();
        let all = [plan.manifests, plan.sums, plan.segments].map(owned);
        Ok((all, plan.waiting))
    }

    fn steps(&self, rules: &Rules, now: u64) -> usize {
        self.planned(rules, now)
            .map_or(0, |(all, _)| all.iter().map(Vec::len).sum())
    }

    /// Deletes the first `steps` of what may go, and looks at the target after each.
    fn retire(&mut self, keep_days: u16, steps: usize) {
        // Only after a push that ended well, even if there was nothing to send.
        self.settle();
        if !self.state.ready {
            self.rebuild();
        }
        if self.state.manifest.map(|(transaction, _)| transaction.0) != Some(self.last) {
            self.push(0, &[], Ends::Well);
        }
        let rules = Rules {
            act: true,
            minimum_age_days: 0,
            keep_days,
        };
        let span = u64::from(keep_days) * DAY;
        assert_eq!(self.steps(&rules, 0), 0, "without a clock nothing is old enough");
        let Ok((planned, _)) = self.planned(&rules, self.now) else {
            return;
        };
        let must_stay = self.must_stay(span);
        let mut left = steps;
        for group in planned {
            for some in group.chunks(3) {
                self.state.apply(Record::Retired { objects: some.to_vec() });
                for object in some {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    let written = self.bucket.remove(object).unwrap();
                    assert!(written + span <= self.now, "{object} is too young");
                    assert!(!must_stay.contains(object), "{object} was to stay");
                    self.is_whole();
                }
            }
        }
    }

    /// The newest manifests, and all that were the newest at some time in the days to go back to.
    fn must_stay(&self, span: u64) -> BTreeSet<String> {
        let there = self.names.keys().filter(|manifest| self.bucket.contains_key(*manifest));
        let mut there: Vec<_> = there.cloned().collect();
        there.sort_by_key(|manifest| parse_manifest(manifest));
        let written = |at: usize| there.get(at).map_or(u64::MAX, |manifest| self.bucket[manifest]);
        let stays = |at: usize| at + KEEP_NEWEST >= there.len() || written(at + 1) + span > self.now;
        (0..there.len())
            .filter(|at| stays(*at))
            .map(|at| there[at].clone())
            .collect()
    }

    /// Every manifest that is there can be restored.
    fn is_whole(&self) {
        for (manifest, objects) in self
            .names
            .iter()
            .filter(|(manifest, _)| self.bucket.contains_key(*manifest))
        {
            for object in objects {
                assert!(self.bucket.contains_key(object), "{manifest} lacks {object}");
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Days(days) => self.now += u64::from(days) * DAY,
            Event::Push { new, freed, ends } => self.push(new, &freed, ends),
            Event::Back(at) => {
                if !self.freed.is_empty() {
                    let number = self.freed.swap_remove(usize::from(at) % self.freed.len());
                    self.local.insert(number);
                }
            }
            Event::Lose(at) => {
                let number = self.local.iter().copied().nth(usize::from(at) % (self.local.len() + 1));
                self.freed.extend(number);
                self.local.retain(|other| Some(*other) != number);
            }
            Event::LoseLedger => self.state = State::default(),
            Event::Retire { keep_days, steps } => self.retire(keep_days, usize::from(steps)),
        }
        self.is_whole();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_manifest_that_is_there_stays_whole(events in proptest::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
        }
        // In the end nothing is left but what the newest need, in however many pieces it is done.
        for _ in 0..KEEP_NEWEST {
            world.push(1, &[], Ends::Well);
        }
        world.now += 400 * DAY;
        world.push(1, &[], Ends::Well);
        world.now += 400 * DAY;
        let rules = Rules { act: true, minimum_age_days: 0, keep_days: 90 };
        while world.steps(&rules, world.now) > 0 {
            world.retire(90, 3);
        }
        prop_assert_eq!(world.planned(&rules, world.now), Ok((Default::default(), Tally::default())));
        let needed: BTreeSet<String> = world.must_stay(90 * DAY).into_iter().flat_map(|manifest| {
            let sums = sums_of_manifest(&manifest).unwrap();
            let names = world.names[&manifest].clone();
            names.into_iter().chain([signature_of_sums(&sums), sums, manifest])
        }).collect();
        prop_assert_eq!(needed, world.bucket.keys().cloned().collect());
    }
}

#[test]
fn what_is_not_as_it_should_be_stays_all() {
    type Spoil = fn(&mut World);
    let spoil: [(&str, Spoil); 7] = [
        ("is gone", |world| {
            world.bucket.remove("data/0/2.gpg");
        }),
        ("is gone", |world| {
            world.bucket.remove("manifest/10.json.gpg");
        }),
        ("is not signed", |world| {
            world.bucket.remove("manifest/10.SHA256SUMS.asc");
        }),
        ("newer manifest", |world| world.put("manifest/11.json.gpg")),
        ("somebody else", |world| world.put("manifest/7.5.json.gpg")),
        ("sent again first", |world| world.state.publish_again = true),
        ("nothing was published", |world| world.state = State::default()),
    ];
    for (why, spoil) in spoil {
        let mut world = World::new();
        world.push(2, &[], Ends::Well);
        for _ in 0..8 {
            world.push(1, &[2], Ends::Well);
            world.now += 50 * DAY;
        }
        let rules = Rules::default();
        assert!(world.steps(&rules, world.now) > 3);
        world.now += 100;
        spoil(&mut world);
        let refused = world.planned(&rules, world.now).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn the_tiers_minimum_counts_as_well() {
    let mut world = World::new();
    world.push(3, &[], Ends::Well);
    for _ in 0..4 {
        world.push(1, &[0], Ends::Well);
    }
    world.now += 60 * DAY;
    let steps = |rules: Rules| world.steps(&rules, world.now);
    let short = Rules {
        keep_days: 30,
        ..Rules::default()
    };
    assert!(steps(short) > 0);
    assert_eq!(
        steps(Rules {
            minimum_age_days: 90,
            ..short
        }),
        0
    );
}
