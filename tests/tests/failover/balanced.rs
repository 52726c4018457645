//! What the tests with real servers share.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lab::{
    Director,
    failover::{Balanced, Holders},
    registry::wait_until,
    topology::Mode,
};

use crate::support::SOON;

/// The web server's address for clients.
pub const URL: &str = "http://192.168.10.50/";

/// The word of the configuration for a mode.
pub fn forward(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat => "nat",
        Mode::Dr => "dr",
        Mode::Tun => "tun",
    }
}

/// Starts both directors, the first one first.
pub fn start_both(scene: &Balanced, texts: &[String; 2]) -> Result<Vec<Director>> {
    scene.sides.iter().zip(texts).map(|(side, text)| Director::start(&side.netns, text)).collect()
}

/// Waits until one side has the address alone.
pub fn await_side(holders: &Holders, side: usize, directors: &[Director]) -> Result<()> {
    let only = wait_until(SOON, || holders.now() == [side]);
    ensure!(only, "{:?} have the address, not {side} alone\n{}", holders.now(), logs(directors));
    Ok(())
}

/// Waits until exactly so many real servers answer in turn.
pub fn await_answers(scene: &Balanced, servers: usize, directors: &[Director]) -> Result<()> {
    let mut last = None;
    let answered = wait_until(SOON, || {
        let answers = scene.client.curl_each(URL, servers * 2);
        let fits =
            answers.as_ref().is_ok_and(|answers| answers.iter().collect::<BTreeSet<_>>().len() == servers);
        last = Some(answers);
        fits
    });
    ensure!(answered, "not {servers} servers answer: {last:?}\n{}", logs(directors));
    Ok(())
}

/// Fails unless every request to this side is answered at once, and by so many real servers.
pub fn ensure_all_serve(scene: &Balanced, side: usize, servers: usize, directors: &[Director]) -> Result<()> {
    // Until the others have heard where the address is now, they ask the dead.
    let leads = wait_until(SOON, || scene.leads_to(side).unwrap_or(false));
    ensure!(leads, "the neighbour tables do not lead to {side}\n{}", logs(directors));
    // The new master's checks may still be at their beginning: it serves those that were not proven dead.
    let answers = scene.client.curl_each(URL, servers * 2);
    let fits = answers.as_ref().is_ok_and(|answers| answers.iter().collect::<BTreeSet<_>>().len() == servers);
    ensure!(fits, "not {servers} servers answer: {answers:?}\n{}", logs(directors));
    Ok(())
}

/// What all have printed.
pub fn logs(directors: &[Director]) -> String {
    directors.iter().map(|director| director.log() + "---\n").collect()
}
