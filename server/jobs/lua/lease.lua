-- Joined in front of the scripts about a lease that one process holds. Its value is the holder and a number that grows
-- with each renewal. Takes or renews it for args.name, for args.lease_ms; args.dead is a value that the caller has seen
-- stand still for too long. Returns '' when `name` has it now, else the value that another one keeps it with.
local function hold(lease)
  local value = redis.call('GET', lease) or ''
  local holder, count = string.match(value, '^(%S+) (%d+)$')
  if value ~= '' and holder ~= args.name and value ~= args.dead then
    return value
  end
  local next_count = holder == args.name and tonumber(count) + 1 or 1
  redis.call('SET', lease, args.name .. ' ' .. string.format('%.0f', next_count), 'PX', args.lease_ms)
  return ''
end
