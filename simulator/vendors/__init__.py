"""Third-party APIs that are synced: GitHub, Jira Cloud, Figma and Slack, with their quotas, data and faults.

From Python, with the simulator running, or `ThirdParties` alone in any aiohttp application (`thirds.routes()`):

    async with Simulator(clock=time.time, speed=10) as sim:      # an hour's window lasts six minutes
        thirds = sim.thirds
        acme = thirds.account("github", "acme", sizes={"repos": 2, "issues": 100_000, "comments": 1})
        acme.base_url            # http://127.0.0.1:port/sim/github: paths below it are the vendor's own
        acme.access_token        # Authorization: Bearer ...
        acme.refresh_token, acme.client_id, acme.client_secret
        acme.options             # jira: cloud_id, zone; figma: team_id, plan; slack: team_id, small_history

        acme.ids("issues")                     # the vendor's identifiers; parent="..." restricts
        acme.count("issues")                   # how many there are
        acme.add("issues", count=5)            # in any repository, or parent="acme/service-001" (or its id)
        acme.add("comments", about=issue_id)   # GitHub's comments are siblings of issues
        acme.change("issues", [issue_id])      # a new revision now; without identifiers `count` of them at random
        acme.delete("issues", count=3)         # gone; Slack's and Jira's users stay, marked

        acme.expire()       # the access token; refreshing rotates (Figma's refresh token stays)
        acme.revoke()       # all tokens, until acme.restore(), which gives new ones

        thirds.set_limits(acme, {"primary": 500})
        thirds.eat(acme, "primary", 4_000)     # another client of the same quota: a surprise
        thirds.fault("other_client", vendor="github", rate=0.01, amount=10, amount_most=200, times=None)
        thirds.fault("error", vendor="jira", status=503, times=20)     # all kinds: VendorFault
        thirds.faults.clear()

        thirds.summary()["github"]             # VendorStatistics: requests, refusals and whose fault they were
        thirds.statistics("github")            # ScopeStatistics of each quota: counts.taken, .refused, .used, ...
        thirds.reset_statistics()

Token endpoints, below the base URL: github POST /login/oauth/access_token, jira POST /oauth/token, figma POST
/v1/oauth/refresh (Basic), slack POST /api/oauth.v2.access.

Kinds, and parents in `sizes` (counts are per parent), are in each vendor's module, as are quotas and options:

    github  repos > issues, repos > comments (size: per issue)      primary, secondary            of the account
    jira    projects; issues > comments; users                      points (of the app), burst    site x endpoint
    figma   projects > files > comments, versions; components       tier2, tier3                  of the account
    slack   channels > messages > replies; users                    each method's name            of the account

Of an account's refusals `refused_own` are the client's fault, `refused_again` came before the time that a refusal had
named, and `refused_surprise` would have been let through if no other client had used the quota. `used` is what was
spent of what an even client could have spent from the first request to the last, other clients' part taken off.

Over HTTP the same is at /control/vendors:

    POST   /control/vendors/accounts/{vendor}               {name, sizes, limits, token_seconds, app, seed, options}
    GET    /control/vendors/accounts[/{vendor}/{name}]
    PATCH  /control/vendors/accounts/{vendor}/{name}        {sizes, limits, token: revoke | expire | restore}
    POST   /control/vendors/accounts/{vendor}/{name}/items  {action: add | change | delete, kind, ids, parent, count}
    GET    /control/vendors/accounts/{vendor}/{name}/items/{kind}?parent=
    POST   /control/vendors/accounts/{vendor}/{name}/eat    {quota, amount, scope}
    PUT    /control/vendors/speed                           {speed}; all quotas begin anew
    POST   /control/vendors/faults                          a VendorFault; DELETE clears them
    GET    /control/vendors/statistics?vendor=              {vendors, quotas}; DELETE clears them
"""

from simulator.vendors.accounts import Account
from simulator.vendors.control import VendorControl
from simulator.vendors.faults import VendorFault, VendorFaults
from simulator.vendors.third_parties import ScopeStatistics, ThirdParties, VendorStatistics

__all__ = [
    "Account",
    "ScopeStatistics",
    "ThirdParties",
    "VendorControl",
    "VendorFault",
    "VendorFaults",
    "VendorStatistics",
]
