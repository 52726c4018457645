//! The agent goes and comes; packets do not notice.

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    require_director,
    topology::{self, Mode, Options, Scene},
};

use crate::support::{configuration, connections, ensure_in_turn, fill, forward, status};

fn web(scene: &Scene, mode: Mode) -> VirtualServer {
    fill(VirtualServer::tcp("web", topology::vip4(80)).forward(forward(mode)), scene, false, 80, &[1, 1, 1])
}

#[test]
fn packets_go_on_without_an_agent_and_the_next_one_takes_over() -> Result<()> {
    require_director!("packets_go_on_without_an_agent_and_the_next_one_takes_over");
    for kill in [false, true] {
        let scene = topology::nat(&Options::new(if kill { "restart-kill" } else { "restart-term" }))?;
        let configuration = configuration(&scene).serve(&web(&scene, Mode::Nat));
        let mut director = Director::start(&scene.director, configuration.text())?;
        let held: Vec<_> =
            (0..6).map(|_| scene.client().connect(topology::vip4(80))).collect::<Result<_>>()?;
        let before = connections(&director)?;
        ensure!(before.len() == 6, "{before:?}");
        if kill {
            director.kill()?;
        } else {
            director.stop()?;
        }
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.restart()?;
        ensure!(director.log().contains("took over"), "{}", director.log());
        let after = connections(&director)?;
        for connection in &before {
            ensure!(
                after.iter().any(|one| (one.client, one.real) == (connection.client, connection.real)),
                "{connection:?} is not in {after:?}"
            );
        }
        let status = status(&director)?;
        ensure!(status.persistence.adopted && status.totals.stats.connections == 12, "{status:?}");
        drop(held);
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.detach()?;
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.is_none(), "XDP is left on {device}");
        }
    }
    Ok(())
}
