"""Who a mail is really from: SPF, DKIM, ARC and DMARC by libraries, and the Authentication-Results field that says so."""
