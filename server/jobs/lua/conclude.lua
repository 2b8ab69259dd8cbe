-- Joined in front of the scripts that may end a job, behind `storage`.

-- What nobody asks for of a job that has ended.
local OF_ACTIVE_JOBS = {'share', 'rows', 'work', 'done', 'nonce', 'base', 'anew', 'trace'}

local CALLBACK_MS = 86400 * 1000
local CALLBACK_BYTES = 4096 -- of its body, which is written when it is sent first

local function note_callback(state, storage)
  local callback = callback_key(field('id'))
  redis.call('HSET', callback, 'url', field('callback'), 'tenant', field('tenant'), 'state', state)
  redis.call('PEXPIRE', callback, CALLBACK_MS)
  redis.call('ZADD', CALLBACKS, now, field('id'))
  charge_for(storage, CALLBACK_MS, bytes_of(callback) + CALLBACK_BYTES)
end

local DAY_MS = 86400 * 1000
local USAGE_DAYS = 40

-- Counts what the job has cost its tenant today, by UTC.
local function note_usage(state)
  local tenant = field('tenant') ~= '' and field('tenant') or OPEN_TENANT
  local usage = usage_key(tenant, string.format('%.0f', math.floor(now / DAY_MS)))
  local begun, rows = number('started'), number('rows')
  redis.call('HINCRBY', usage, state, 1)
  if begun > 0 then
    redis.call('HINCRBY', usage, 'milliseconds', string.format('%.0f', math.max(0, now - begun)))
  end
  if rows > 0 then
    redis.call('HINCRBY', usage, 'steps', string.format('%.0f', math.floor(number('done') / rows)))
  end
  if state == 'completed' then
    redis.call('HINCRBY', usage, 'pictures', cjson.decode(field('params')).n or 0)
  end
  redis.call('PEXPIRE', usage, USAGE_DAYS * DAY_MS)
end

-- The one way for a job to end: out of the queue, terminal event, result, lifetimes, tombstone. `num_bytes` is what was
-- stored besides for as long as the result. It leaves the queue first, since that takes no memory: what has begun to
-- write is not stopped by a Redis that is full.
local function conclude(state, body, result_ttl, tombstone_ttl, num_bytes)
  leave_queue(field('entry'))
  redis.call('ZREM', key.due, field('id'))
  if field('share') ~= '' then
    redis.call('SREM', field('share'), field('id'))
  end
  local source = field('source')
  if source ~= '' and state == 'canceled' and field('started') == '' then
    redis.call('DEL', source) -- nobody goes on with it, and nothing came of it
    source = ''
  elseif source ~= '' then
    redis.call('PEXPIRE', source, result_ttl)
  end
  local outputs = outputs_key(field('id'))
  redis.call('DEL', values_key(field('id'))) -- nobody goes on from them
  note_usage(state)
  redis.call('HSET', key.job, 'state', state, 'finished', now, 'result', body)
  redis.call('HDEL', key.job, unpack(OF_ACTIVE_JOBS))
  append(state, body)
  redis.call('SET', key.tombstone, state .. ' ' .. field('tenant'), 'PX', tombstone_ttl)
  local storage = storage_of(field('tenant'))
  forget_expired(storage)
  release_active(storage)
  if field('callback') ~= '' then
    note_callback(state, storage)
  end
  charge_result(storage, result_ttl, num_bytes or 0, key.job, key.events, key.previews, source, outputs)
  charge_for(storage, tombstone_ttl, bytes_of(key.tombstone))
  redis.call('PEXPIRE', key.job, result_ttl)
  redis.call('PEXPIRE', key.events, result_ttl)
  redis.call('PEXPIRE', key.previews, result_ttl)
  redis.call('PEXPIRE', outputs, result_ttl)
end
