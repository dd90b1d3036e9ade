// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use super::*;

fn file(number: u64) -> FileName {
    FileName::new(&format!("v.novastor-x-{number}.qcow2")).expect("a name")
}

fn named(name: &str) -> Snapshot {
    let method = "overlay".to_owned();
    Snapshot { name: name.into(), layer: ROOT, size: 512, created_unix_nanos: 1, method }
}

fn taken(tree: &Tree, name: &str) -> Tree {
    tree.with_snapshot(named(name), &file(tree.last + 1))
}

/// What is done until nothing is left to do.
fn settled(mut tree: Tree) -> (Tree, Vec<Step>) {
    let mut steps = Vec::new();
    loop {
        let step = tree.next(&[]);
        tree = match &step {
            Step::Rest => return (tree, steps),
            Step::Sweep => tree.swept(),
            Step::Drop(id) => tree.dropped(*id),
            Step::Merge { child, .. } => tree.merged(*child),
            Step::Settle { .. } => tree.merged(tree.active),
        };
        tree.check().expect("sound");
        steps.push(step);
        assert!(steps.len() < 1000, "it goes on for ever: {tree:?}");
    }
}

#[test]
fn a_volume_without_snapshots_is_one_file() {
    let tree = Tree::default();
    tree.check().expect("sound");
    assert!(tree.is_plain());
    assert_eq!(tree.next(&[]), Step::Rest);
    assert_eq!(tree.chain(ROOT), [ROOT]);
}

#[test]
fn each_snapshot_freezes_a_layer() {
    let tree = taken(&taken(&Tree::default(), "a"), "b");
    tree.check().expect("sound");
    assert_eq!((tree.active, tree.chain(2)), (2, vec![0, 1, 2]));
    let layers: Vec<_> = tree.snapshots.iter().map(|snapshot| snapshot.layer).collect();
    assert_eq!(layers, [0, 1]);
    assert_eq!(tree.next(&[]), Step::Rest);
}

#[test]
fn the_last_snapshot_gone_leaves_one_file() {
    let tree = taken(&Tree::default(), "a").without_snapshot("a");
    assert_eq!(tree.next(&[]), Step::Settle { parent: ROOT });
    assert_eq!(tree.next(&[ROOT]), Step::Rest, "somebody reads it");
    assert_eq!(tree.next(&[1]), Step::Rest, "somebody reads what is on it");
    let (tree, _) = settled(tree);
    assert!(tree.is_plain());
    assert_eq!((tree.active, tree.last), (ROOT, 1), "no number is given twice");
}

#[test]
fn a_frozen_layer_goes_into_its_parent_from_the_root_up() {
    let tree = taken(&taken(&taken(&Tree::default(), "a"), "b"), "c");
    let tree = tree.without_snapshot("a").without_snapshot("b");
    assert_eq!(tree.next(&[]), Step::Merge { child: 1, parent: ROOT });
    let (tree, steps) = settled(tree);
    assert_eq!(
        steps,
        [
            Step::Merge { child: 1, parent: ROOT },
            Step::Sweep,
            Step::Merge { child: 2, parent: ROOT },
            Step::Sweep
        ]
    );
    assert_eq!(tree.snapshot("c").map(|snapshot| snapshot.layer), Some(ROOT));
    assert_eq!(tree.chain(tree.active), [0, 3]);
}

#[test]
fn going_back_leaves_what_other_snapshots_need() {
    let tree = taken(&taken(&Tree::default(), "a"), "b");
    let back = tree.rolled_back(ROOT, &file(3));
    back.check().expect("sound");
    assert_eq!((back.active, back.chain(3)), (3, vec![0, 3]));
    assert_eq!(back.gone, [file(2).to_string()]);
    let (back, _) = settled(back);
    assert_eq!(back.overlays.len(), 2, "b is still there");
    let (alone, steps) = settled(back.without_snapshot("b"));
    assert_eq!(steps, [Step::Drop(1), Step::Sweep]);
    assert_eq!(alone.overlays.len(), 1);
    let (branch, _) = settled(back.without_snapshot("a"));
    assert_eq!(branch.overlays.len(), 2, "two layers lie on what was a");
    assert!(settled(branch.without_snapshot("b")).0.is_plain());
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let good = taken(&taken(&Tree::default(), "a"), "b");
    let broken: Vec<fn(&mut Tree)> = vec![
        |tree| tree.active = 7,
        |tree| tree.active = 1,
        |tree| tree.overlays[0].parent = 2,
        |tree| tree.overlays[1].parent = 9,
        |tree| tree.overlays[0].id = 2,
        |tree| tree.overlays[1].file = "../x".into(),
        |tree| tree.overlays[1].file = tree.overlays[0].file.clone(),
        |tree| tree.gone.push(tree.overlays[0].file.clone()),
        |tree| tree.snapshots[0].layer = 2,
        |tree| tree.snapshots[0].layer = 5,
        |tree| tree.last = 1,
    ];
    for (number, breaks) in broken.into_iter().enumerate() {
        let mut tree = good.clone();
        breaks(&mut tree);
        tree.check().expect_err(&format!("{number}: {tree:?}"));
    }
}

/// A volume of a few blocks, each layer a map of what it has.
#[derive(Clone, Default)]
struct Model {
    tree: Tree,
    layers: BTreeMap<LayerId, BTreeMap<u8, u32>>,
}

impl Model {
    fn seen(&self, layer: LayerId) -> BTreeMap<u8, u32> {
        let chain = self.tree.chain(layer).into_iter();
        chain
            .filter_map(|id| self.layers.get(&id))
            .cloned()
            .reduce(|mut all, above| {
                all.extend(above);
                all
            })
            .unwrap_or_default()
    }

    fn step(&mut self) -> bool {
        let step = self.tree.next(&[]);
        let child = match step {
            Step::Rest => return false,
            Step::Merge { child, .. } => child,
            Step::Settle { .. } => self.tree.active,
            Step::Drop(id) => {
                self.tree = self.tree.dropped(id);
                self.layers.remove(&id);
                return true;
            }
            Step::Sweep => {
                self.tree = self.tree.swept();
                return true;
            }
        };
        let parent = self.tree.overlay(child).expect("known").parent;
        let above = self.layers.remove(&child).unwrap_or_default();
        self.layers.entry(parent).or_default().extend(above);
        self.tree = self.tree.merged(child);
        true
    }
}

#[test]
fn whatever_is_done_every_snapshot_and_the_volume_keep_their_content() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model = Model::default();
        let mut wanted: BTreeMap<String, BTreeMap<u8, u32>> = BTreeMap::new();
        let mut now = BTreeMap::new();
        for round in 0..60_u32 {
            let names: Vec<String> = wanted.keys().cloned().collect();
            let some = (!names.is_empty()).then(|| names[random.usize(..names.len())].clone());
            match (random.u8(0..8), some) {
                (0 | 1, _) => {
                    let name = format!("s{round}");
                    model.tree = taken(&model.tree, &name);
                    wanted.insert(name, now.clone());
                }
                (2, Some(name)) => {
                    model.tree = model.tree.without_snapshot(&name);
                    wanted.remove(&name);
                }
                (3, Some(name)) => {
                    let on = model.tree.snapshot(&name).expect("there").layer;
                    let old = model.tree.active;
                    model.tree = model.tree.rolled_back(on, &file(model.tree.last + 1));
                    model.layers.remove(&old);
                    now = wanted[&name].clone();
                }
                (4 | 5, _) => {
                    model.step();
                }
                _ => {
                    let (at, value) = (random.u8(0..6), round);
                    model.layers.entry(model.tree.active).or_default().insert(at, value);
                    now.insert(at, value);
                }
            }
            model.tree.check().expect("sound");
            assert_eq!(model.seen(model.tree.active), now, "seed {seed}, round {round}");
            for snapshot in &model.tree.snapshots {
                assert_eq!(model.seen(snapshot.layer), wanted[&snapshot.name], "seed {seed}");
            }
        }
        for name in wanted.keys() {
            model.tree = model.tree.without_snapshot(name);
        }
        while model.step() {}
        assert!(model.tree.is_plain(), "seed {seed}: {:?}", model.tree);
        assert_eq!(model.seen(ROOT), now);
    }
}
