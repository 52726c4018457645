//! Virtual servers and instances, and who gets mail.

use super::{another, good, instance, messages, one};

/// An instance, and a virtual server with `rest` from line 12.
fn bound(rest: &str) -> String {
    format!(
        "{}[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:80\"\n{rest}\n\
         real_server = [{{ address = \"10.0.0.1\" }}]\n",
        instance("excluded_addresses = [\"192.0.2.77\"]")
    )
}

#[test]
fn a_virtual_server_is_bound_to_an_instance() {
    let config = good(&bound("bind_to = \"a\""));
    assert_eq!(config.virtual_servers[0].bind_to.as_deref(), Some("a"));
    assert_eq!(messages(&bound("bind_to = \"a\"")), [""; 0]);
    assert_eq!(good(&bound("")).virtual_servers[0].bind_to, None);
    let path = "virtual_server[0] \"web\".bind_to = ";
    one(
        &bound("bind_to = \"A\""),
        &format!("f:12: {path}\"A\": no [[vrrp_instance]] of this name; expected \"a\"; did you mean \"a\"?"),
    );
    one(&bound("bind_to = 3"), &format!("f:12: {path}3: wrong type, an integer"));
    // Excluded addresses are the instance's too.
    let other = |address: &str| bound("bind_to = \"a\"").replace("192.0.2.1:80", address);
    assert_eq!(messages(&other("192.0.2.77:80")), [""; 0]);
    one(
        &other("192.0.2.9:80"),
        &format!("f:12: warning: {path}\"a\": 192.0.2.9 is none of the instance's addresses"),
    );
    // What is wrong with the instance is said there only.
    let broken = bound("bind_to = \"a\"").replace("[\"192.0.2.1\"]", "[\"192.0.2.1/33\"]");
    one(&broken, "f:7: vrrp_instance[0] \"a\".addresses[0] = \"192.0.2.1/33\": the prefix is longer than 32");
    let broken = bound("bind_to = \"a\"").replace("name = \"a\"", "name = \"a a\"");
    one(&broken, "f:4: vrrp_instance[0].name = \"a a\": ' ' is not allowed");
}

#[test]
fn an_instance_tracks_virtual_servers() {
    let tracking = |name: &str| {
        bound("").replace("excluded", &format!("track_virtual_servers = [\"{name}\"]\nexcluded"))
    };
    assert_eq!(messages(&tracking("web")), [""; 0]);
    one(
        &tracking("wep"),
        "f:8: vrrp_instance[0] \"a\".track_virtual_servers[0] = \"wep\": no [[virtual_server]] of this name; expected \
         \"web\"; did you mean \"web\"?",
    );
    let broken = tracking("web").replace("name = \"web\"", "name = \"w b\"");
    one(&broken, "f:11: virtual_server[0].name = \"w b\": ' ' is not allowed");
}

#[test]
fn one_mail_for_a_group() {
    const MAIL: &str = "[mail]\nserver = \"localhost\"\ntls = \"none\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n";
    let group =
        |rest: &str| format!("[[vrrp_sync_group]]\nname = \"g\"\ninstances = [\"a\", \"b\"]\n{rest}\n");
    let mails = |text: &str| {
        let vrrp = good(text).vrrp;
        let instances: Vec<_> = vrrp.instances.iter().map(|one| one.mail).collect();
        (instances, vrrp.sync_groups.iter().map(|one| one.mail).collect::<Vec<_>>())
    };
    let three = |keys: &str| format!("{}{}{}", instance(keys), another("b", 2), another("c", 3));
    assert_eq!(mails(&format!("{}{}", three(""), group(""))), (vec![false; 3], vec![false]));
    // As soon as there is somebody to mail to: the group for its members, unless the file says otherwise.
    assert_eq!(mails(&format!("{}{}{MAIL}", three(""), group(""))), (vec![false, false, true], vec![true]));
    assert_eq!(
        mails(&format!("{}{}{MAIL}", three("mail = true"), group("mail = false"))),
        (vec![true, false, true], vec![false])
    );
    one(
        &format!("{}{}", three(""), group("mail = true")),
        "f:22: vrrp_sync_group[0] \"g\".mail = true: to nobody; expected a table [mail], or false",
    );
}
