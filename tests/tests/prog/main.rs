//! The XDP program, one packet at a time: each case of the table says what arrives and what has to become of it, to the
//! last byte. The program is the real one, run by the kernel (BPF_PROG_TEST_RUN).
//!
//! To add a case, copy one from the file that it fits best and change it; `scene.rs` says who is who. It gets a client of
//! its own ([`scene::Client::new`]), so that it shares no connection with another case.

mod case;
mod changes;
mod checks;
mod forwarding;
mod fragments;
mod full_table;
mod icmp;
mod maps;
mod moving;
mod odd;
mod options;
mod plane;
mod random;
mod scene;
mod schedulers;
mod services;
mod setup;
mod size_and_life;
mod standby;
mod table;
mod tcp_states;
mod thresholds;
mod vlan;
mod way_back;

use lab::{registry, requirements};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let missing = setup::missing();
    let mut trials = vec![
        Trial::test("every verdict has a case", || Ok(table::every_verdict_has_a_case()?)),
        Trial::test("every case has its own name", || Ok(table::names_are_unique()?)),
        privileged("the program has exactly the maps that both sides name", &missing, maps::are_known),
        privileged("maps that the agent has in memory can be mapped", &missing, maps::can_be_mapped),
        privileged(
            "the program loads with debug events, with little work for the verifier",
            &missing,
            maps::load_with_events,
        ),
        privileged("random packets get a consistent verdict", &missing, random::packets_get_a_verdict),
    ];
    for case in table::all() {
        let name = case.name.clone();
        trials.push(privileged(&name, &missing, move || case.run()));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    registry::remove_everything(&mut registry::lock());
    conclusion.exit();
}

/// A test that runs only where the program can be loaded.
fn privileged(
    name: &str,
    missing: &Option<String>,
    test: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let (skipped, name_again) = (missing.clone(), name.to_owned());
    Trial::test(name, move || match skipped {
        Some(why) => {
            requirements::say_skipped(&name_again, &why);
            Ok(())
        }
        None => test().map_err(|error| Failed::from(format!("{error:#}"))),
    })
}
