//! Bodies of requests on the admin socket, and addresses as an operator types them.

#![no_main]

use lb_userspace::api::{Order, ServerAddress, Stop};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(order) = serde_json::from_slice::<Order>(bytes) {
        order.server.parse::<ServerAddress>().expect("the order was checked");
        let text = serde_json::to_vec(&order).expect("it has come from such a text");
        assert_eq!(serde_json::from_slice::<Order>(&text).expect("our own words"), order);
    }
    let _ = serde_json::from_slice::<Stop>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = text.parse::<ServerAddress>()
    {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
