//! A public key of RSA, whose private key was thrown away, and tokens of `alice` signed with it that expire in 2100.

pub(super) const PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtLgl5X2btBsOsqoTJx+K\n\
gW4JgL/A/8fglgpGjJXWTvoSLykVvk81JobrspjHQdKaWBBv/rbc9gyNUMso/LPv\n\
YPut1txHytK9avfOPIIdr0w/izFlP+zbxMhDHmOBWGmraMm0kOqmNnt5VnOGIOmM\n\
A2aRn1PRBkKjZ4TpH2afyK68g34A2+5vdJvjXcVkMQ2CM7MsmAvD3rzdK3Qcq+Ni\n\
iDr4ZU9DA7Q+CXGAzepAqtgZhvbui457pxgsoLAKTTizuOHVnIsqpqH/JCi1hPah\n\
rscmNbbQk0QPXFbQJ5p+oh+OQmokk9jet3QcFaIU38rRonDSb8bi3MOAe+9FuhOq\n\
MwIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

/// PKCS #1 v1.5 with SHA-256.
pub(super) const RS256: &str = "\
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.YboLOLn5VRorbZ1DpqK8sHk_ssnkH\
    kDC72SUtQpfAOMedhME-OsbIZLwkQYb-gRuk5rSOOMvdol5JN30GYaRSXTqkqoj6DDd7Q5A8_CXR5paG_aG9Xna_und8D72v_1lCXL0-ilnl4_\
    r5o7X88Q7gEaR_2EGrf5Rz11NgOpJ10zmA-x_vfWZduvP00Aq2mvIt_OSBMQkCKz1ycJa9pivVwVIiUaFVUDZW6jthJ6JFgGJmryjCqsm9JBBZ\
    W28GIqyygcp0d77MqniVbcmPDVeVGaATnNzwOPJrlJN4QSuapnaJPE93xv1EDMn9RVOkdpK3ENzOWykEx5kOlNYnfyU5g";

/// PSS with SHA-256.
pub(super) const PS256: &str = "\
    eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.AS9jfBJZPC0_kOSH7bga3pi5HR-8j\
    YAptIgJe5MYhkNLOhNxA7oFjZPTyPpqB0yd7IooewJ7MpGUGmBuLYSep-p4apAkh0GhVe25wUEr5SLT_NWyQyH2zdzXIPMi76ayBk1FlFTjvJ7\
    sKCk8xbTsCnIrRSOg9tRqco_UMwmmOFyNq1CNzV03dEHwaTYU6ZaKKWl_W_DW2dkiVOEfm2BlkwvVbUyxjabA6ShW9Fispftq6QnJsZQbDaNRD\
    HOYWkVgmV7fHrOPDVBg9-N4CoFgPXw5Pk4e66AKw4d3djmQ3sYTq7-mkcz-iih8mItHG-i-dG6FvTqkiLumN9SyJMr2mA";
