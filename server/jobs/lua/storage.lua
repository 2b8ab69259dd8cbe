-- Joined in front of the scripts that begin or end a job. What a tenant keeps in Redis is counted in one hash: `total` in
-- bytes, `active:{model}` of jobs that wait or run, and a field for each span of time, named by the ms at which it ends,
-- of what expires in it. `next` is the first of these ends. Spans are lifetimes / SPANS long, so that the hash stays short.
local SPANS = 64
local IDLE_MS = 7 * 86400 * 1000 -- nothing is known of a tenant that was silent for so long, and kept nothing meanwhile

local function storage_of(tenant)
  return storage_key(tenant ~= '' and tenant or OPEN_TENANT)
end

-- As Redis has them allocated; a key that is not there takes nothing.
local function bytes_of(...)
  local bytes = 0
  for _, name in ipairs({...}) do
    bytes = bytes + (name ~= '' and redis.call('MEMORY', 'USAGE', name, 'SAMPLES', 0) or 0)
  end
  return bytes
end

-- Calls visit(name, bytes, ms at which it expires or nil) for all that is counted.
local function each_charge(storage, visit)
  local facts = redis.call('HGETALL', storage)
  for i = 1, #facts, 2 do
    if facts[i] ~= 'total' and facts[i] ~= 'next' then
      visit(facts[i], tonumber(facts[i + 1]), tonumber(facts[i]))
    end
  end
end

-- Bytes that are kept now. It writes nothing: a script may refuse whatever Redis' memory allows.
local function stored(storage)
  local known = redis.call('HMGET', storage, 'total', 'next')
  local total = tonumber(known[1]) or 0
  if known[2] and tonumber(known[2]) <= now then
    each_charge(storage, function(_, bytes, expiry)
      total = total - (expiry and expiry <= now and bytes or 0)
    end)
  end
  return total
end

-- Milliseconds until `excess` bytes have expired; -1 where so much does not expire before jobs end that wait or run.
local function time_until_expired(storage, excess)
  local spans = {}
  each_charge(storage, function(_, bytes, expiry)
    if expiry and expiry > now then
      spans[#spans + 1] = {expiry, bytes}
    end
  end)
  table.sort(spans, function(a, b) return a[1] < b[1] end)
  for _, span in ipairs(spans) do
    excess = excess - span[2]
    if excess <= 0 then
      return span[1] - now
    end
  end
  return -1
end

local function forget_expired(storage)
  local first = tonumber(redis.call('HGET', storage, 'next'))
  if not first or first > now then
    return
  end
  local total, left = 0, nil
  each_charge(storage, function(name, bytes, expiry)
    if expiry and expiry <= now then
      redis.call('HDEL', storage, name)
    else
      total = total + bytes
      left = expiry and math.min(left or expiry, expiry) or left
    end
  end)
  redis.call('HSET', storage, 'total', string.format('%.0f', total))
  if left then
    redis.call('HSET', storage, 'next', string.format('%.0f', left))
  else
    redis.call('HDEL', storage, 'next')
  end
end

-- Prolonged long before it runs out, and so seldom written.
local function keep(storage, ttl)
  if redis.call('PTTL', storage) < ttl + IDLE_MS / 2 then
    redis.call('PEXPIRE', storage, ttl + IDLE_MS)
  end
end

local function add_charge(storage, name, bytes)
  redis.call('HINCRBY', storage, name, string.format('%.0f', bytes))
  redis.call('HINCRBY', storage, 'total', string.format('%.0f', bytes))
end

-- Counts what is kept for `ttl` ms from now.
local function charge_for(storage, ttl, bytes)
  if bytes == 0 then
    return 0
  end
  local span = math.max(1, math.ceil(ttl / SPANS))
  local ends = math.ceil((now + ttl) / span) * span
  add_charge(storage, string.format('%.0f', ends), bytes)
  local first = tonumber(redis.call('HGET', storage, 'next'))
  if not first or ends < first then
    redis.call('HSET', storage, 'next', string.format('%.0f', ends))
  end
  keep(storage, ttl)
  return ends
end

local CHARGE = '%014.0f %014.0f'

-- Counts what is kept of a job that has ended, so that it can be taken back: these keys, and so many bytes besides.
local function charge_result(storage, ttl, num_bytes, ...)
  redis.call('HSET', key.job, 'charge', string.format(CHARGE, 0, 0)) -- it takes room itself
  local bytes = bytes_of(...) + num_bytes
  redis.call('HSET', key.job, 'charge', string.format(CHARGE, charge_for(storage, ttl, bytes), bytes))
end

-- Takes back what was counted of a job that has ended, unless it has expired.
local function release_result(storage)
  local ends, bytes = string.match(field('charge'), '^0*(%d+) (%d+)$')
  if ends and redis.call('HEXISTS', storage, ends) == 1 then
    add_charge(storage, ends, -tonumber(bytes))
  end
end

-- Counts an accepted job, with `reserve` for what it will write.
local function charge_active(storage, model, reserve)
  forget_expired(storage)
  local bytes = bytes_of(key.job, key.events, field('source')) + reserve
  redis.call('HSET', key.job, 'storage', bytes)
  add_charge(storage, 'active:' .. model, bytes)
  keep(storage, 0)
end

-- Takes back what was counted of an active job.
local function release_active(storage)
  local name = 'active:' .. field('model')
  local held = tonumber(redis.call('HGET', storage, name)) or 0
  local bytes = math.min(held, number('storage'))
  if bytes > 0 then -- a job that a process of before accepted, or that went with Redis' data, was never counted
    add_charge(storage, name, -bytes)
  end
  if held == bytes then
    redis.call('HDEL', storage, name)
  end
  redis.call('HDEL', key.job, 'storage')
end

-- Before a tenant is refused: jobs that somebody deleted by hand, or that a worker of before ended, hold nothing.
local function recount_active(storage, model, share)
  local name, bytes = 'active:' .. model, 0
  for _, id in ipairs(redis.call('SMEMBERS', share)) do
    local facts = redis.call('HMGET', job_key(id), 'state', 'storage')
    if facts[1] and not is_terminal(facts[1]) then
      bytes = bytes + (tonumber(facts[2]) or 0)
    end
  end
  local held = tonumber(redis.call('HGET', storage, name)) or 0
  if held ~= bytes then
    add_charge(storage, name, bytes - held)
  end
end
