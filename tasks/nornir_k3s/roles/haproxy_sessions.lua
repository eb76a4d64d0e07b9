-- Managed by nornir-k3s. Shuts the sessions of a server that is down, so that clients connect to another one: only while
-- another is well. Where all are slow, or their datastore is away, no other would serve a session better.

local EVERY = 250 -- milliseconds
-- Seconds up, after which a server counts: when all come back, one is always the first.
local SETTLED = tonumber(os.getenv("K3S_SETTLED"))

local function well(stats)
  local checks = tonumber(stats.check_rise) + tonumber(stats.check_fall) - 1
  return stats.status:sub(1, 2) == "UP" and tonumber(stats.check_health) == checks and tonumber(stats.lastchg) >= SETTLED
end

local function look()
  local down, others = {}, false
  for name, server in pairs(core.backends["checks"].servers) do
    local stats = server:get_stats()
    if stats.status:sub(1, 4) == "DOWN" then
      down[#down + 1] = name
    end
    others = others or well(stats)
  end
  for _, name in ipairs(others and down or {}) do
    for _, backend in ipairs({ "servers", "all" }) do
      core.backends[backend].servers[name]:shut_sess()
    end
  end
end

core.register_task(function()
  while true do
    core.msleep(EVERY)
    look()
  end
end)
