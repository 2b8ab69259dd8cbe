-- Joined in front of every script. KEYS[1..4] of a script about one job: job, events, queue, tombstone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function field(name)
  return redis.call('HGET', KEYS[1], name) or ''
end

local function number(name)
  return tonumber(field(name)) or 0
end

local function append(kind, body)
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  redis.call('XADD', KEYS[2], seq .. '-0', 'type', kind, 'at', now, 'body', body)
  return seq
end

local function leave_queue(group, entry)
  redis.call('XACK', KEYS[3], group, entry)
  redis.call('XDEL', KEYS[3], entry)
end

local function is_terminal(state)
  return state == 'completed' or state == 'failed' or state == 'canceled'
end

local function is_mine(worker, epoch)
  return field('state') == 'running' and field('owner') == worker and field('epoch') == epoch
end

-- The one way for a job to end: terminal event, result, lifetimes, tombstone, and out of the queue.
local function conclude(group, state, body, result_ttl, tombstone_ttl)
  redis.call('HSET', KEYS[1], 'state', state, 'finished', now, 'result', body)
  append(state, body)
  leave_queue(group, field('entry'))
  redis.call('PEXPIRE', KEYS[1], result_ttl)
  redis.call('PEXPIRE', KEYS[2], result_ttl)
  if field('source') ~= '' then
    redis.call('PEXPIRE', field('source'), result_ttl)
  end
  redis.call('SET', KEYS[4], state, 'PX', tombstone_ttl)
end
