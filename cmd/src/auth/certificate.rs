//! The TLS client certificate names the user. That it is genuine, the listener's TLS stage has verified against its CA.

use super::chain::{Answer, Attempt, Call, Provider};
use super::config::{CertificateConfig, CertificateField, TenantField};
use super::name::{check_tenant, check_user};
use bifro_core::plugin::{Grant, Refusal};
use bifro_core::tenant::TenantName;
use bifro_core::time::Instant;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// The provider.
#[derive(Debug)]
pub(super) struct Certificate {
    config: CertificateConfig,
}

impl Certificate {
    pub(super) fn new(config: &CertificateConfig) -> Self {
        Self { config: config.clone() }
    }

    fn answer(&self, call: &Call) -> Answer {
        let Some(der) = &call.request.certificate else {
            return if self.config.required { Answer::Refused(Refusal::NotAuthorized) } else { Answer::NotMine };
        };
        if call.request.enhanced.is_some() {
            return Answer::NotMine;
        }
        match self.read(der, call.now()) {
            Ok(grant) => Answer::Granted(Box::new(grant)),
            Err(problem) => {
                tracing::debug!(peer = ?call.request.peer, problem, "client certificate refused");
                Answer::Refused(Refusal::BadCredentials)
            }
        }
    }

    fn read(&self, der: &[u8], now: Instant) -> Result<Grant, &'static str> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "not a certificate")?;
        if !rest.is_empty() {
            return Err("bytes after the certificate");
        }
        let validity = certificate.validity();
        let unix_s = i64::try_from(now.as_unix_secs()).map_err(|_| "the clock is beyond reason")?;
        let not_after = validity.not_after.timestamp();
        if unix_s < validity.not_before.timestamp() || unix_s > not_after {
            return Err("expired, or not valid yet");
        }
        let user = user(&certificate, self.config.user)?;
        check_user(&user).map_err(|_| "the name in it cannot be a user's")?;
        let tenant = match self.config.tenant_from {
            Some(field) => Some(tenant(&certificate, field)?),
            None => self.config.tenant.clone(),
        };
        let expires_at = u64::try_from(not_after).ok().and_then(|s| s.checked_mul(1_000_000)).map(Instant::from_micros);
        Ok(Grant { tenant: tenant.map(TenantName::from), user: user.into(), expires_at, ..Grant::default() })
    }
}

impl Provider for Certificate {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        Attempt::Now(self.answer(call))
    }
}

fn user(certificate: &X509Certificate<'_>, field: CertificateField) -> Result<String, &'static str> {
    if field == CertificateField::CommonName {
        let mut names = certificate.subject().iter_common_name();
        return match (names.next(), names.next()) {
            (Some(name), None) => text(name),
            (Some(_), Some(_)) => Err("more than one Common Name"),
            (None, _) => Err("no Common Name"),
        };
    }
    let extension = certificate.subject_alternative_name().map_err(|_| "unreadable subject alternative names")?;
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let name = names.iter().find_map(|name| match (field, name) {
        (CertificateField::Dns, GeneralName::DNSName(name))
        | (CertificateField::Email, GeneralName::RFC822Name(name))
        | (CertificateField::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
        _ => None,
    });
    name.ok_or("no subject alternative name of the kind asked for")
}

fn tenant(certificate: &X509Certificate<'_>, field: TenantField) -> Result<String, &'static str> {
    let subject = certificate.subject();
    let mut names: Box<dyn Iterator<Item = _>> = match field {
        TenantField::Organization => Box::new(subject.iter_organization()),
        TenantField::OrganizationalUnit => Box::new(subject.iter_organizational_unit()),
    };
    let name = match (names.next(), names.next()) {
        (Some(name), None) => text(name)?,
        (Some(_), Some(_)) => return Err("more than one tenant"),
        (None, _) => return Err("no tenant"),
    };
    check_tenant(&name).map_err(|_| "the name in it cannot be a tenant's")?;
    Ok(name)
}

fn text(value: &AttributeTypeAndValue<'_>) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).map_err(|_| "a name that is not text")
}
