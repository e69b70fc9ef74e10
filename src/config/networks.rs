//! Networks as settings: IP addresses in CIDR notation.

use super::kind::{Kind, Raw};
use crate::model::{Network, NotNetwork};

/// A network in CIDR notation, or a single address.
pub(super) struct Cidr;

impl Kind for Cidr {
    type Value = Network;

    fn read(&self, raw: &Raw) -> Result<Network, String> {
        let text = raw.text("a network such as \"10.0.0.0/8\"")?;
        Network::parse(text).map_err(|error| match error {
            NotNetwork::Syntax => format!("`{text}` is not an IP address or a network"),
            NotNetwork::Prefix { bits } => {
                format!("`{text}` has a prefix longer than {bits} bits")
            }
            NotNetwork::Inside(network) => {
                format!("`{text}` begins inside a network: \"{network}\"?")
            }
        })
    }

    fn show(&self, value: &Network) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "a network such as 10.0.0.0/8 or fd00::/8, or one IP address".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_one_is_named_with_its_mend() {
        let read = |text: &str| Cidr.read(&Raw::Text(text.into()));
        let shown = |text| read(text).map(|it| Cidr.show(&it));
        assert_eq!(shown("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(shown("::1").as_deref(), Ok("::1/128"));
        let error = |text| read(text).expect_err("no network");
        assert!(error("10.1.0.0/8").contains("\"10.0.0.0/8\"?"));
        assert!(error("10.0.0.0/40").contains("32 bits"));
        assert!(error("proxy.example").contains("not an IP address"));
        assert!(Cidr.read(&Raw::Integer(10)).is_err());
    }
}
